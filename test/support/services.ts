import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** A program that tests need and npm does not bring. */
export interface Service {
  readonly name: string
  /** The variable that points tests to one that runs already. Without it they always start their own. */
  readonly variable?: string
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

export const redis: Service = {
  name: 'Redis',
  // It is Sentinel too.
  programs: ['redis-server'],
  folders: ['/usr/bin', '/usr/local/bin', '/opt/homebrew/bin', ...versions('/opt/homebrew/opt', 'bin', 'redis'), ...versions('/usr/local/opt', 'bin', 'redis')],
  // Tests start their own servers: the package shall start none, neither now nor with the machine.
  install: `
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap "rm $policy" EXIT
      printf '#!/bin/sh\\nexit 101\\n' > $policy
      chmod +x $policy
    fi
    apt-get install -y --no-install-recommends redis-server
    update-rc.d redis-server disable`
}

export const services: readonly Service[] = [postgresql, redis]

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
