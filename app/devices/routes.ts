import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { SessionRecord } from 'fastify-token-registry'
import type { AuditTarget } from 'fastify-token-registry/audit'
import { answers } from '../http/schemas.ts'
import { EndedAnswer } from '../sessions/schemas.ts'
import { DeviceAnswer, deviceAnswer, DeviceBody, DeviceParams, DevicesAnswer } from './schemas.ts'

const tags = ['devices']
const config = { session: { noStore: true } }

function deviceTarget (id: string, { sub }: Pick<SessionRecord, 'sub'>): AuditTarget {
  return { kind: 'device', id, sub }
}

/** The devices of who is signed in. Another's device is answered as one that does not exist. */
export const deviceRoutes: FastifyPluginAsyncTypebox = async app => {
  const { devices } = app.sessionLimits

  app.get('', {
    config,
    schema: { operationId: 'listDevices', summary: 'Own devices', tags, response: answers({ 200: DevicesAnswer }) }
  }, async request => {
    const { session } = request.requireAuth()
    const own = await devices.list(session)
    return { devices: own.map(device => deviceAnswer(device, session.meta.deviceId)) }
  })

  app.patch('/:id', {
    config,
    schema: { operationId: 'changeDevice', summary: 'Name one of the own devices, or trust it', tags, params: DeviceParams, body: DeviceBody, response: answers({ 200: DeviceAnswer }) }
  }, async request => {
    const { session } = request.requireAuth()
    const { params: { id }, body } = request
    const event = { type: 'device.change', target: deviceTarget(id, session), data: body, personal: ['name'] }
    return deviceAnswer(await request.audit(event, async () => await devices.change(session, id, body)), session.meta.deviceId)
  })

  app.delete('/:id', {
    config,
    schema: { operationId: 'forgetDevice', summary: 'End the sessions on one of the own devices, and forget it', tags, params: DeviceParams, response: answers({ 200: EndedAnswer }) }
  }, async request => {
    const { session } = request.requireAuth()
    const { id } = request.params
    const event = { type: 'device.forget', target: deviceTarget(id, session) }
    return { ended: await request.audit(event, async () => await devices.forget(session, id, { by: session.sub, request })) }
  })
}
