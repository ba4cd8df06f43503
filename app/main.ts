import closeWithGrace from 'close-with-grace'
import { environment, loadConfig, type Config } from './config.ts'
import { createServer, type Server } from './server.ts'

/** ms after which a server that does not close is left */
const CLOSE_WITHIN = 30_000

try {
  const config = loadConfig(environment())
  const server = await createServer({ config, logger: { level: config.logLevel } })
  await listen(server, config)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

async function listen ({ app }: Server, { host, port, shutdownDelayMs }: Config): Promise<void> {
  try {
    const address = await app.listen({ host, port })
    app.log.info({ address, docs: `${address}/docs` }, 'listening')
  } catch (error) {
    await app.close()
    throw error
  }

  closeWithGrace({ delay: shutdownDelayMs + CLOSE_WITHIN, logger: app.log }, async ({ signal, err }) => {
    if (err === undefined) {
      app.log.info({ signal }, 'closing')
      await app.health.drain()
    } else {
      app.log.fatal({ err }, 'the server fails, and closes')
      await app.close()
    }
  })
}
