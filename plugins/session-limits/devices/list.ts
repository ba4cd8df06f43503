import { DeviceNotFound } from '../errors.ts'
import { networkOf } from './network.ts'

/** A device as its owner sees it. All times are milliseconds since the epoch. */
export interface Device {
  /** Public: it names a device and proves nothing. 16 random bytes as base64url. */
  id: string
  /** 1 to 100 characters */
  name: string
  /** Whether its owner named it; else the name follows the user agent. */
  custom: boolean
  trusted: boolean
  firstSeenAt: number
  /** When somebody signed in with it last. */
  lastSeenAt: number
  /** Where that was from, as far as it is known. */
  ipAddress: string | null
}

/** What is kept of one subject. */
export interface DeviceList {
  /** Last seen first. */
  readonly devices: readonly Device[]
  /** Where the subject signed in from, as `networkOf` tells it: last seen first. */
  readonly networks: readonly string[]
}

export interface Sighting {
  id: string
  at: number
  /** By its owner. */
  name: string | null
  /** By its user agent. */
  agentName: string | null
  ipAddress: string | null
}

/** What its owner changes of a device. What is left out stays. */
export interface DeviceChange {
  /** 1 to 100 characters without control characters; white space around it is taken away. It then follows the user agent no more. */
  name?: string | undefined
  /** Trusted ones make room for new ones last, and limits may treat them otherwise. */
  trusted?: boolean | undefined
}

/** What a sign-in told that was not known before. */
export interface Seen {
  device: Device
  /** Nothing was known of the subject before: there is nobody to be warned. */
  first: boolean
  isNew: boolean
  /** The address is in a network that none of the subject's devices was seen in; false where none are known to compare with. */
  newNetwork: boolean
  /** Devices that made room. Their sessions are left alone. */
  forgotten: Device[]
}

export const NO_DEVICES: DeviceList = { devices: [], networks: [] }

const MAX_NETWORKS = 32
const UNKNOWN = 'Unknown device'

/**
 * Notes a sign-in.
 *
 * @param list null where nothing was ever kept of the subject
 * @param max devices that are kept: the untrusted ones make room first, of equals those that were not seen for longest, and never the one that is seen
 */
export function see (list: DeviceList | null, sighting: Sighting, max: number): { list: DeviceList, result: Seen } {
  const { devices, networks } = list ?? NO_DEVICES
  const { id, ipAddress } = sighting
  const known = devices.find(device => device.id === id)
  const device = seenAgain(known, sighting)
  const others = devices.filter(other => other !== known)
  const forgotten = leastWanted(others).slice(0, Math.max(0, others.length + 1 - max))
  const kept = [device, ...others.filter(other => !forgotten.includes(other))]
  const network = ipAddress === null ? null : networkOf(ipAddress)

  return {
    list: {
      devices: kept.sort((a, b) => b.lastSeenAt - a.lastSeenAt),
      networks: network === null ? networks : [network, ...networks.filter(other => other !== network)].slice(0, MAX_NETWORKS)
    },
    result: {
      device,
      first: list === null,
      isNew: known === undefined,
      newNetwork: network !== null && networks.length > 0 && !networks.includes(network),
      forgotten
    }
  }
}

/**
 * Changes a device.
 *
 * @throws {DeviceNotFound}
 */
export function change (list: DeviceList | null, id: string, { name, trusted }: DeviceChange): { list: DeviceList, result: Device } {
  const { devices, networks } = list ?? NO_DEVICES
  const known = devices.find(device => device.id === id)
  if (known === undefined) throw new DeviceNotFound()
  const result = { ...known, ...name !== undefined && { name, custom: true }, ...trusted !== undefined && { trusted } }
  return { list: { devices: devices.map(device => device === known ? result : device), networks }, result }
}

/** The list without a device. Networks stay: who forgets devices is no unknown subject, whom nobody would warn. */
export function without (list: DeviceList, id: string): DeviceList {
  return { ...list, devices: list.devices.filter(device => device.id !== id) }
}

/** The list without devices that were last seen before a time. */
export function since (list: DeviceList, time: number): DeviceList {
  return { ...list, devices: list.devices.filter(device => device.lastSeenAt > time) }
}

function seenAgain (known: Device | undefined, { id, at, name, agentName, ipAddress }: Sighting): Device {
  return {
    id,
    ...nameOf(known, name, agentName),
    trusted: known?.trusted ?? false,
    // Sign-ins may be noted in another order than they came.
    firstSeenAt: Math.min(known?.firstSeenAt ?? at, at),
    lastSeenAt: Math.max(known?.lastSeenAt ?? at, at),
    ipAddress: ipAddress ?? known?.ipAddress ?? null
  }
}

function nameOf (known: Device | undefined, own: string | null, agentName: string | null): Pick<Device, 'name' | 'custom'> {
  if (known?.custom === true) return { name: known.name, custom: true }
  if (own !== null) return { name: own, custom: true }
  return { name: agentName ?? known?.name ?? UNKNOWN, custom: false }
}

/** In the order in which they are forgotten. */
function leastWanted (devices: readonly Device[]): Device[] {
  const oldestFirst = devices.toReversed()
  return [...oldestFirst.filter(({ trusted }) => !trusted), ...oldestFirst.filter(({ trusted }) => trusted)]
}
