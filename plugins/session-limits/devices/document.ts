import { Type, type Static } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import type { Device, DeviceList } from './list.ts'

const time = Type.Number({ minimum: 0 })
const CUSTOM = 1
const TRUSTED = 2

/** id, name, flags, first seen, last seen, address */
const StoredDevice = Type.Tuple([
  Type.String({ pattern: '^[A-Za-z0-9_-]{22}$' }),
  Type.String(),
  Type.Integer({ minimum: 0, maximum: CUSTOM | TRUSTED }),
  time,
  time,
  Type.Union([Type.String(), Type.Null()])
])

const Stored = Type.Object({ v: Type.Literal(1), devices: Type.Array(StoredDevice), networks: Type.Array(Type.String()) })
const stored = TypeCompiler.Compile(Stored)

/** The text that is kept of a subject's devices. */
export function textOf ({ devices, networks }: DeviceList): string {
  const document: Static<typeof Stored> = {
    v: 1,
    devices: devices.map(({ id, name, custom, trusted, firstSeenAt, lastSeenAt, ipAddress }) => [
      id, name, (custom ? CUSTOM : 0) | (trusted ? TRUSTED : 0), firstSeenAt, lastSeenAt, ipAddress
    ]),
    networks: [...networks]
  }
  return JSON.stringify(document)
}

/** @returns null for a text that `textOf` did not make */
export function listFrom (text: string): DeviceList | null {
  const document = parsed(text)
  if (!stored.Check(document)) return null
  return { devices: document.devices.map(deviceFrom), networks: document.networks }
}

function deviceFrom ([id, name, flags, firstSeenAt, lastSeenAt, ipAddress]: Static<typeof StoredDevice>): Device {
  return { id, name, custom: (flags & CUSTOM) !== 0, trusted: (flags & TRUSTED) !== 0, firstSeenAt, lastSeenAt, ipAddress }
}

function parsed (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
