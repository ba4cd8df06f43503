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
  install: quietly('redis-server', 'redis-server')
}

export const prometheus: Service = {
  name: 'Prometheus',
  programs: ['prometheus', 'promtool'],
  folders: ['/usr/bin', '/usr/local/bin', '/opt/homebrew/bin'],
  // Tests start their own servers: the package shall start none, neither now nor with the machine.
  install: quietly('prometheus', 'prometheus')
}

export const services: readonly Service[] = [postgresql, redis, prometheus]

/** Installs a package whose service starts neither now nor with the machine. */
function quietly (name: string, service: string): string {
  return `
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap "rm $policy" EXIT
      printf '#!/bin/sh\\nexit 101\\n' > $policy
      chmod +x $policy
    fi
    apt-get install -y --no-install-recommends ${name}
    if command -v update-rc.d > /dev/null; then update-rc.d ${service} disable; fi`
}

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
