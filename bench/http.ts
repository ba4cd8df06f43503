import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as after } from 'node:timers/promises'
import { Child } from './child.ts'
import { Load } from './load.ts'
import type { Ready, Turn, Usage } from './server.ts'

/** ms of load in a slice */
const SLICE = 1000
/** ms at the beginning of a turn that are not measured */
const SETTLE = 10
/** ms of load for each variant before the first turn */
const WARM_UP = 1500
/** What the server must have had of its core in a turn for it to count. */
const SHARE = 0.92
/** Slices after which the servers start anew: how well a process happens to be compiled and laid out in memory lasts as long as it lives. */
const SLICES_OF_A_PROCESS = 4
/** How many times as long as planned the passes may take before the run gives up. */
const PATIENCE = 5

export interface HttpOptions {
  /** How many each variant gets. */
  slices: number
  /** ms, a divisor of 1000; 1000 takes each slice in one piece */
  turn: number
}

/** All variants have the same number of slices: fewer than asked for where the machine was too busy. */
export interface Measured {
  variants: Array<{ name: string, slices: Usage[] }>
  /** A pass is a turn of each variant. */
  passes: { taken: number, counted: number }
}

/**
 * Measures variants side by side. A slice is a second of load, taken in turns: ABC, CBA, ABC, … Whoever else keeps the machine busy for a
 * while then slows all variants alike. A pass counts where the server had its core in each turn of it.
 */
export async function measure (names: readonly string[], options: HttpOptions, signal: AbortSignal): Promise<Measured> {
  const measured: Measured = { variants: names.map(name => ({ name, slices: [] })), passes: { taken: 0, counted: 0 } }
  for (let done = 0; done < options.slices; done += SLICES_OF_A_PROCESS) {
    // Each time another one comes first.
    const first = done / SLICES_OF_A_PROCESS % names.length
    const order = [...names.slice(first), ...names.slice(0, first)]
    const slices = Math.min(SLICES_OF_A_PROCESS, options.slices - done)

    const { lanes, passes } = await withServers(order, signal, async lanes => ({ lanes, passes: await takeSlices(lanes, slices, options.turn) }))
    for (const variant of measured.variants) variant.slices.push(...lanes.find(({ name }) => name === variant.name)?.slices ?? [])
    measured.passes.taken += passes.taken
    measured.passes.counted += passes.counted
  }
  return measured
}

/** Does something with servers that are warm and rest. */
async function withServers<Result> (
  names: readonly string[], signal: AbortSignal, work: (lanes: readonly Lane[]) => Promise<Result>
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-'))
  const servers = names.map(name => ({ name, server: new Child('server.ts', [join(folder, name), name], signal) }))
  const lanes: Lane[] = []
  try {
    const ready = await Promise.all(servers.map(async ({ name, server }) => ({ name, server, ...await server.ask<Ready>() })))
    for (const { name, server, port } of ready) lanes.push(new Lane(name, server, new Load(`http://127.0.0.1:${port}/me`, join(folder, name))))
    await after(WARM_UP * names.length, undefined, { signal })
    for (const { load } of lanes) load.pause()
    return await work(lanes)
  } finally {
    for (const { load } of lanes) load.end()
    for (const { server } of servers) await server.end()
    await rm(folder, { recursive: true })
  }
}

async function takeSlices (lanes: readonly Lane[], slices: number, turn: number): Promise<Measured['passes']> {
  const wanted = slices * SLICE / turn
  const giveUpAt = performance.now() + PATIENCE * wanted * lanes.length * (turn + SETTLE)
  const passes = { taken: 0, counted: 0 }
  while (passes.counted < wanted && performance.now() < giveUpAt) {
    passes.taken++
    if (!await pass(passes.counted % 2 === 0 ? lanes : lanes.toReversed(), turn)) continue
    passes.counted++
    for (const lane of lanes) lane.keep()
    if (passes.counted * turn % SLICE === 0) for (const lane of lanes) lane.endSlice()
  }
  return passes
}

/** A turn of each variant, until the server of one did not have its core. */
async function pass (lanes: readonly Lane[], turn: number): Promise<boolean> {
  for (const lane of lanes) if (!await lane.take(turn)) return false
  return true
}

const NOTHING: Readonly<Usage> = { requests: 0, wall: 0, cpu: 0 }

/** A variant as it is measured. */
class Lane {
  readonly name: string
  readonly load: Load
  readonly slices: Usage[] = []
  readonly #server: Child
  #turn = NOTHING
  #slice = NOTHING

  constructor (name: string, server: Child, load: Load) {
    this.name = name
    this.load = load
    this.#server = server
  }

  /** @returns whether the server had its core */
  async take (duration: number): Promise<boolean> {
    this.load.resume()
    this.#turn = await this.#server.ask<Usage>({ settle: SETTLE, duration } satisfies Turn)
    this.load.pause()
    return this.#turn.cpu / this.#turn.wall >= SHARE
  }

  keep (): void {
    const { requests, wall, cpu } = this.#turn
    this.#slice = { requests: this.#slice.requests + requests, wall: this.#slice.wall + wall, cpu: this.#slice.cpu + cpu }
  }

  endSlice (): void {
    this.slices.push(this.#slice)
    this.#slice = NOTHING
  }
}
