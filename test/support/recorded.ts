import { Cluster, Redis, type Command } from 'ioredis'

/** What was sent while some work was done, and how often it waited for Redis. */
export interface Recorded {
  /** Names, in order. */
  commands: string[]
  /** Rounds of the network: what was sent without waiting for one another shares one. */
  trips: number
}

/** Notes what a client sends, heartbeats left out. Answers are held back until all of a round are there. */
export class Recorder {
  /** Is awaited before the client sees the answers of a round. */
  afterRound: () => Promise<unknown> = async () => {}
  #recorded: Recorded | null = null
  #round: { waiting: number, done: Promise<void>, end: () => void } | null = null

  async record (work: () => Promise<unknown>): Promise<Recorded> {
    const recorded: Recorded = { commands: [], trips: 0 }
    this.#recorded = recorded
    try {
      await work()
    } finally {
      this.#recorded = null
    }
    return recorded
  }

  /** @returns what the client is given in place of what `sendCommand` returned */
  note ({ name, args }: Command, sent: unknown): unknown {
    if (this.#recorded === null || args.some(arg => String(arg).includes(':h:')) || !(sent instanceof Promise)) return sent
    this.#recorded.commands.push(name)
    const round = this.#round ?? this.#begin(this.#recorded)
    round.waiting++
    return sent.finally(async () => {
      if (--round.waiting === 0) {
        await this.afterRound()
        this.#round = null
        round.end()
      }
      await round.done
    })
  }

  #begin (recorded: Recorded) {
    recorded.trips++
    let end = (): void => {}
    const done = new Promise<void>(resolve => { end = resolve })
    this.#round = { waiting: 0, done, end }
    return this.#round
  }
}

export class RecordedRedis extends Redis {
  readonly recorder = new Recorder()

  override sendCommand (...sent: Parameters<Redis['sendCommand']>): unknown {
    return this.recorder.note(sent[0], super.sendCommand(...sent))
  }
}

export class RecordedCluster extends Cluster {
  readonly recorder = new Recorder()

  override sendCommand (...sent: Parameters<Cluster['sendCommand']>): unknown {
    return this.recorder.note(sent[0], super.sendCommand(...sent))
  }
}
