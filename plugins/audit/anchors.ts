import { open, type FileHandle } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { within } from '../token-registry/index.ts'
import { AuditOptions } from './errors.ts'

/** Keeps checkpoints in a place that those who can write to the ledger cannot: only against such a one truncation, and a rewrite of everything, show. */
export type Anchor = (checkpoint: { size: number, note: string }) => void | Promise<void>

/** ms */
const TIMEOUT = 5000
const PAUSE = { first: 1000, longest: 60_000 }

/**
 * Appends each checkpoint to a file, one after the other, and syncs it: `notesIn` of `audit/verify` reads it.
 *
 * @param path on another disk, machine, or medium that is written once
 */
export function fileAnchor (path: string): Anchor {
  return async ({ note }) => {
    const file = await open(path, 'a+', 0o600)
    try {
      // One that was not written to its end stays by itself.
      await file.appendFile(`${await isWhole(file) ? '' : '\n\n'}${note}\n`)
      await file.datasync()
    } finally {
      await file.close()
    }
  }
}

async function isWhole (file: FileHandle): Promise<boolean> {
  const { size } = await file.stat()
  const end = Buffer.alloc(2)
  await file.read(end, 0, 2, Math.max(0, size - 2))
  return size === 0 || end.equals(Buffer.from('\n\n'))
}

/**
 * POSTs each checkpoint as text, by https or to this machine; redirects count as failures.
 *
 * @throws {AuditOptions} where the URL is another
 */
export function webhookAnchor (url: string, headers: Readonly<Record<string, string>> = {}): Anchor {
  if (!isSafe(url)) throw new AuditOptions('webhookAnchor: url is no https: URL (http: goes only to this machine)')
  return async ({ note }) => {
    const response = await fetch(url, { method: 'POST', body: note, headers: { 'content-type': 'text/plain; charset=utf-8', ...headers }, redirect: 'error', signal: AbortSignal.timeout(TIMEOUT) })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`the anchor answered ${response.status}`)
  }
}

function isSafe (url: string): boolean {
  if (!URL.canParse(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'https:' || (protocol === 'http:' && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname))
}

/** Sends checkpoints to anchors in the background, the latest one where several wait, until each has it. */
export class Anchors {
  readonly #anchors: readonly Anchor[]
  readonly #failed: (error: unknown) => void
  readonly #closing = new AbortController()
  readonly #next = new Map<Anchor, { size: number, note: string }>()
  readonly #sending = new Map<Anchor, Promise<void>>()
  readonly figures = { anchored: 0, failures: 0 }

  constructor (anchors: readonly Anchor[], failed: (error: unknown) => void) {
    this.#anchors = anchors
    this.#failed = failed
  }

  send (checkpoint: { size: number, note: string }): void {
    for (const anchor of this.#anchors) {
      const { size = -1 } = this.#next.get(anchor) ?? {}
      if (size < checkpoint.size) this.#next.set(anchor, checkpoint)
      if (!this.#sending.has(anchor)) this.#sending.set(anchor, this.#sendTo(anchor))
    }
  }

  /** Sends what waits, once: that takes at most 10 s. */
  async close (): Promise<void> {
    this.#closing.abort()
    await Promise.all(this.#sending.values())
  }

  async #sendTo (anchor: Anchor): Promise<void> {
    let wait = PAUSE.first
    for (let checkpoint = this.#next.get(anchor); checkpoint !== undefined; checkpoint = this.#next.get(anchor)) {
      try {
        await within(Promise.resolve(anchor(checkpoint)), TIMEOUT, () => new Error('the anchor did not answer'))
        this.figures.anchored++
        wait = PAUSE.first
        if (this.#next.get(anchor) === checkpoint) this.#next.delete(anchor)
      } catch (error) {
        this.figures.failures++
        this.#failed(error)
        if (this.#closing.signal.aborted) break
        await pause(wait * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => {})
        wait = Math.min(wait * 2, PAUSE.longest)
      }
    }
    this.#sending.delete(anchor)
  }
}
