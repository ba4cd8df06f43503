/** Names, labels and value; then an exemplar. Within quotes anything may stand. */
const sample = /^([^\s{]+(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})? \S+) # \{/

/**
 * OpenMetrics as the text format 0.0.4 of Prometheus, for those that know no other: counters are named as their samples are, and there are no exemplars.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export function asPlainText (openMetrics: string): string {
  const lines = openMetrics.split('\n').filter(line => line !== '# EOF')
  const counters = new Set(lines.map(line => /^# TYPE (\S+) counter$/.exec(line)?.[1]))
  return lines.map(line => {
    const [, kind, name, rest] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (kind !== undefined) return counters.has(name) ? `# ${kind} ${name}_total ${rest}` : line
    return sample.exec(line)?.[1] ?? line
  }).join('\n')
}

/** The value that is none as both formats write it: prom-client does otherwise. */
export function withNaN (text: string): string {
  return text.replace(/^([^#\n].*) Nan$/gm, '$1 NaN')
}

/** Whether who scrapes takes OpenMetrics, as gladly as plain text (RFC 9110 §12.5.1). */
export function takesOpenMetrics (accept = ''): boolean {
  const weight = weightOf(accept, 'application/openmetrics-text')
  return weight > 0 && weight >= weightOf(accept, 'text/plain')
}

function weightOf (accept: string, type: string): number {
  const weights = accept.split(',').map(range => range.split(';').map(part => part.trim().toLowerCase())).filter(([name]) => name === type)
    .map(([, ...parameters]) => Number(parameters.find(parameter => /^q=/.test(parameter))?.slice(2) ?? 1))
  return Math.max(0, ...weights)
}
