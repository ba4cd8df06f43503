/** The calls of the registry that are timed, by the name that `--only` takes, and what each may take at most: ns, the median. */
export const calls = {
  issue: { title: 'issue', target: 10_000 },
  save: { title: 'save', target: 5_000 },
  verify: { title: 'verify, cache miss', target: 5_000 },
  get: { title: 'get', target: null },
  list: { title: 'list of a subject with 10 sessions', target: null },
  rotate: { title: 'rotate', target: 10_000 },
  'denylist.has': { title: 'denylist.has, 10,000 entries', target: 150 },
  revokeAll: { title: 'revokeAll of 10,000 sessions', target: 10_000_000 }
} as const

export type CallName = keyof typeof calls

export function isCallName (name: string): name is CallName {
  return Object.hasOwn(calls, name)
}
