import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** A program that tests need and npm does not bring. */
export interface Service {
  readonly name: string
  /** The variable that points tests to one that runs already. */
  readonly variable: string
  /** What one of its folders must hold. */
  readonly programs: readonly string[]
  /** Where it is installed beside PATH, the best first. */
  readonly folders: readonly string[]
  /** What installs it on Debian and its kin, run by sh as root. */
  readonly install: string
}

export const postgresql: Service = {
  name: 'PostgreSQL',
  variable: 'TEST_DATABASE_URL',
  programs: ['initdb', 'postgres'],
  folders: [...versions('/usr/lib/postgresql', 'bin'), ...versions('/opt/homebrew/opt', 'bin', 'postgresql'), ...versions('/usr/local/opt', 'bin', 'postgresql')],
  // Tests start their own cluster: the package shall make and start none.
  install: `
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/no-main-cluster.conf
    apt-get install -y --no-install-recommends postgresql`
}

export const services: readonly Service[] = [postgresql]

/** The folder of a service's programs, or null where it is not installed. */
export function find ({ programs, folders }: Service): string | null {
  const path = (process.env['PATH'] ?? '').split(delimiter)
  return [...path, ...folders].find(folder => programs.every(program => existsSync(join(folder, program)))) ?? null
}

/** The folders of all versions that are installed below one, the newest first. */
function versions (root: string, folder: string, prefix = ''): string[] {
  if (!existsSync(root)) return []
  const names = readdirSync(root).filter(name => name.startsWith(prefix))
  return names.sort((a, b) => b.localeCompare(a, 'en', { numeric: true })).map(name => join(root, name, folder))
}
