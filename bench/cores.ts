import { spawnSync } from 'node:child_process'

export const SERVER_CORE = 0
export const LOAD_CORE = 1

export const present = (command: string): boolean => spawnSync(command, ['--version']).error === undefined

/** Whether processes can be pinned. Where they cannot, server and load share the cores, and figures are rough. */
export const pins = present('taskset')

// Who dies by SIGKILL can stop nothing: the kernel then ends what it started.
const prefix = present('setpriv') ? ['setpriv', '--pdeathsig', 'KILL'] : []

/** The file and arguments that run a command on one core, for as long as this process lives. */
export function onCore (core: number, command: readonly string[]): [string, string[]] {
  const [file = '', ...args] = [...prefix, ...pins ? ['taskset', '-c', String(core)] : [], ...command]
  return [file, args]
}
