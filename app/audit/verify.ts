import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { SingleBar, Presets } from 'cli-progress'
import { verifyLedger } from 'fastify-token-registry/audit'
import { notesIn, recordsOf, verifyLog, type LogVerdict, type VerifyLogOptions } from 'fastify-token-registry/audit/verify'
import { environment, loadConfig, type Config } from '../config.ts'
import { trustedKeys, withLedger } from './log.ts'

const usage = `Checks the audit log: npm run audit:verify -- [options] [file ...]

Without files it checks the log in the database of the configuration; with them what audit:export or AUDIT_COPY
wrote, in that order, and needs no configuration where --vkey is given.

  --vkey <key>       a public key that is trusted to sign, as the server tells at its start; several can be given
  --outside <file>   checkpoints that were kept elsewhere, as AUDIT_ANCHOR_FILE, which is the default: only against
                     these it shows that the end was cut off, or everything written anew
  --since <seq>      does not look at the contents of entries before this one

Exit code: 0 the log is whole, 1 it was altered, 2 it could not be checked.
`

/** ms after which a bar is shown */
const LONG = 1000

/** How far it has come, on a terminal, where it takes long. */
class Progress {
  readonly #bar = new SingleBar({ format: '{bar} {percentage} % | {eta_formatted} left', stream: process.stderr, hideCursor: true, clearOnComplete: true }, Presets.shades_classic)
  readonly #begun = performance.now()
  readonly #total: number

  constructor (total: number) {
    this.#total = total
  }

  at (value: number): void {
    if (this.#bar.isActive) this.#bar.update(value)
    else if (performance.now() - this.#begun > LONG) this.#bar.start(this.#total, value)
  }

  end (): void {
    this.#bar.stop()
  }
}

try {
  const { values, positionals: files } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      vkey: { type: 'string', multiple: true },
      outside: { type: 'string', multiple: true },
      since: { type: 'string', default: '0' }
    }
  })
  if (values.help) console.log(usage)
  else await check(files, values)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 2
}

interface Asked {
  vkey?: string[]
  outside?: string[]
  since: string
}

async function check (files: readonly string[], { vkey, outside, since }: Asked): Promise<void> {
  if (!/^\d{1,15}$/.test(since)) throw new Error(`--since is ${since}: it may be the number of an entry`)
  const config = files.length > 0 && vkey !== undefined ? null : loadConfig(environment())
  const anchor = config?.audit.anchor.file ?? null
  const notes = await Promise.all((outside ?? (anchor === null ? [] : [anchor])).map(checkpointsIn))
  const options: VerifyLogOptions = {
    vkeys: vkey ?? (config === null ? [] : await trustedKeys(config)),
    ...config !== null && { origin: config.audit.origin },
    outside: notes.flat(),
    since: Number(since)
  }
  const verdict = config !== null && files.length === 0 ? await checkDatabase(config, options) : await checkFiles(files, options)
  tell(verdict, options)
}

async function checkpointsIn (path: string): Promise<string[]> {
  const notes = notesIn(await readFile(path, 'utf8'))
  if (notes.length === 0) throw new Error(`${path} holds no checkpoint`)
  return notes
}

async function checkDatabase (config: Config, options: VerifyLogOptions): Promise<LogVerdict> {
  return await withLedger(config, async ledger => {
    const progress = new Progress((await ledger.head()).size)
    try {
      return await verifyLedger(ledger, { ...options, onProgress: seq => progress.at(seq) })
    } finally {
      progress.end()
    }
  })
}

async function checkFiles (files: readonly string[], options: VerifyLogOptions): Promise<LogVerdict> {
  const sizes = await Promise.all(files.map(async file => (await stat(file)).size))
  const progress = new Progress(sizes.reduce((total, size) => total + size))
  let read = 0
  async function * lines (): AsyncGenerator<string> {
    for (const file of files) {
      for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
        read += Buffer.byteLength(line) + 1
        yield line
      }
    }
  }
  try {
    return await verifyLog(recordsOf(lines()), { ...options, onProgress: () => progress.at(read) })
  } finally {
    progress.end()
  }
}

function tell (verdict: LogVerdict, { vkeys, outside = [] }: VerifyLogOptions): void {
  if (!verdict.ok) {
    console.error(`${verdict.what}: ${verdict.message}`)
    process.exitCode = 1
    return
  }
  const { size, root, signed, checkpoints, pruned } = verdict
  if (signed === 0 && size > 0) {
    console.error(`unsigned: no checkpoint of ${vkeys.join(', ')} covers any of the ${size} entries, so anybody may have written them`)
    process.exitCode = 2
    return
  }
  console.log(`whole: ${size} entries, ${checkpoints} checkpoints`)
  console.log(`root ${root}; signed up to entry ${signed - 1} by ${vkeys.join(', ')}`)
  if (signed < size) console.log(`entries from ${signed} on are not signed yet: anybody who can write to the log may have written them`)
  if (pruned > 0) console.log(`contents before entry ${pruned} were dropped, as the log says itself`)
  if (outside.length === 0) console.log('No checkpoint was kept elsewhere (--outside): whether the end was cut off with its checkpoints, or all was written anew by who has the key, nobody can tell')
}
