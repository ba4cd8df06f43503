/** The environment of a program that a test starts: its own, and without coverage, which counts what this process runs. */
export const childEnv: Readonly<Record<string, string | undefined>> = {
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  _TAPJS_PROCESSINFO_COVERAGE_: '0'
}
