import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { linesOf } from 'fastify-token-registry/audit'
import { environment, loadConfig } from '../config.ts'
import { withLedger } from './log.ts'

// `npm run --silent audit:export > log.ndjson`: the audit log as lines, for whoever is to check it elsewhere. What is sealed stays sealed.
try {
  const config = loadConfig(environment())
  await withLedger(config, async ledger => {
    const lines = Readable.from(linesOf(ledger, config.audit.origin)).map((line: string) => `${line}\n`)
    await pipeline(lines, process.stdout, { end: false })
  })
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
