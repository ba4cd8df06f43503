import { spawnSync } from 'node:child_process'
import { find, services, type Service } from './services.ts'

// Run by `npm test` before the tests: says which services they will use, and installs those that are missing where it can.
const missing = services.filter(service => !isThere(service))
if (missing.length > 0) {
  const root = asRoot()
  if (root === null) fail('it can be installed only as root, or with sudo that asks for no password, on a system with apt-get')
  run(root, 'apt-get update')
  for (const service of missing) {
    console.log(`${service.name}: not found, installing it`)
    run(root, service.install)
    if (!isThere(service)) fail('its package brought no programs to the places where they are looked for')
  }
}

function isThere (service: Service): boolean {
  const { name, variable } = service
  const where = variable === undefined || process.env[variable] === undefined ? find(service) : `the one of ${variable}`
  if (where !== null) console.log(`${name}: ${where}`)
  return where !== null
}

/** What a command is to be prefixed with to run as root, or null where that cannot be. */
function asRoot (): string[] | null {
  if (!succeeds('apt-get', '--version')) return null
  if (process.getuid?.() === 0) return []
  return succeeds('sudo', '-n', 'true') ? ['sudo', '-n'] : null
}

function succeeds (program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0
}

function run (root: readonly string[], script: string): void {
  const [program = 'env', ...args] = [...root, 'env', 'DEBIAN_FRONTEND=noninteractive', 'sh', '-ec', script]
  const { status } = spawnSync(program, args, { stdio: 'inherit' })
  if (status !== 0) fail(`this failed:${script}`)
}

function fail (why: string): never {
  const names = missing.map(({ name, variable }) => variable === undefined ? name : `${name} (or set ${variable} to the URL of one that runs)`)
  console.error(`The tests need ${names.join(' and ')}: ${why}.`)
  process.exit(1)
}
