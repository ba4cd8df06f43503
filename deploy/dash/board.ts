import { readFileSync } from 'node:fs'

/** What is used of a dashboard of Grafana. */
export interface Board {
  templating: { list: Array<{ name: string, query: string | { query: string } }> }
  panels: Panel[]
}

export interface Panel {
  id: number
  type: string
  title: string
  description?: string
  gridPos: { x: number, y: number, w: number, h: number }
  fieldConfig?: { defaults: { unit?: string } }
  /** Rows have none. */
  targets?: Array<{ refId: string, expr: string, legendFormat: string }>
}

export interface Row {
  title: string
  panels: Panel[]
}

export const file = new URL('../grafana/token-registry.json', import.meta.url)

export function readBoard (): Board {
  return JSON.parse(readFileSync(file, 'utf8')) as Board // a test says that it is one
}

/** A row has the panels that follow it. */
export function rowsOf ({ panels }: Board): Row[] {
  const rows: Row[] = []
  for (const panel of panels) {
    if (panel.type === 'row') rows.push({ title: panel.title, panels: [] })
    else rows.at(-1)?.panels.push(panel)
  }
  return rows
}

/** What Grafana asks Prometheus where all tenants and instances are chosen. */
export function asAsked (expr: string): string {
  return expr.replace(/\$(instance|tenant)\b/g, '.*').replaceAll('$__rate_interval', '20s')
}
