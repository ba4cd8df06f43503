import { once } from 'node:events'
import { linesOf } from 'fastify-token-registry/audit'
import { environment, loadConfig } from '../config.ts'
import { withLedger } from './log.ts'

// `npm run --silent audit:export > log.ndjson`: the audit log as lines, for whoever is to check it elsewhere. What is sealed stays sealed.
try {
  const config = loadConfig(environment())
  await withLedger(config, async ledger => {
    for await (const line of linesOf(ledger, config.audit.origin)) {
      if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
    }
  })
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
