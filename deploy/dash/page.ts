import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import Fastify from 'fastify'
import { asAsked, readBoard, rowsOf } from './board.ts'

const uplot = join(dirname(createRequire(import.meta.url).resolve('uplot')), '.')

/** Shows the dashboard of Grafana without a Grafana. The page asks Prometheus by itself. Until `signal` aborts. */
export async function servePage (port: number, prometheus: string, signal: AbortSignal): Promise<void> {
  const app = Fastify({ forceCloseConnections: true })
  const rows = rowsOf(readBoard()).map(({ title, panels }) => ({
    title,
    panels: panels.map(({ title, description, fieldConfig, targets = [] }) => ({
      title, description, unit: fieldConfig?.defaults.unit, targets: targets.map(({ expr, legendFormat }) => ({ expr: asAsked(expr), legend: legendFormat }))
    }))
  }))
  app.get('/', (_request, reply) => reply.type('text/html').send(readFileSync(new URL('page.html', import.meta.url))))
  app.get('/board', async () => ({ prometheus, rows }))
  for (const [name, type] of [['uPlot.iife.min.js', 'text/javascript'], ['uPlot.min.css', 'text/css']] as const) {
    app.get(`/${name}`, (_request, reply) => reply.type(type).send(readFileSync(join(uplot, name))))
  }
  await app.listen({ host: '127.0.0.1', port, signal })
}
