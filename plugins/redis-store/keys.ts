import { createHash } from 'node:crypto'
import { tagOf, type Subject } from '../token-registry/index.ts'
import { subjectLines } from './record.ts'

const ID = /^[A-Za-z0-9_-]{24}$/
const TAG = 4
const DIGEST = 24
/** Of base64url: in a Cluster, what a digest begins with says in which of 64 slots a mark is. */
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/**
 * Names of keys, below the prefix:
 *
 *   s:<id>            a session, or how it ended
 *   u:<id>            its last use: apart, since a write of what caches watch would tell them
 *   x:<subject>       the sessions of a subject, by deadline (ZSET);  o:<subject>  its one-time tokens
 *   g:<subject>\n<group>  those of a group (ZSET, by deadline);  ga:<subject>[\n<group>]  where they are many, by when they were issued;  gu:…  by when they were used last, or before
 *   t:<digest>        places in what a tenant counts of a group, by the microsecond until which each is believed to be taken (ZSET)
 *   i:<name>:<digest> sessions of all subjects, by address or client (ZSET)
 *   p:<subject><op>   what an operation ended beside what it named
 *   c:<subject><op>   that `endAll` set a subject's indexes aside, as cx:… and co:…, with a bit for each slice that was told;  ca:<subject>  who has not ended them yet (ZSET);  q  those that are not done (ZSET, by when they began)
 *   d:<digest>        a mark;  b:  since when there are any;  h:<process>:<number>  a heartbeat;  n:<process>  how many there were
 *   v:<digest>        a document;  l:<name>  what one process does at a time
 *
 * In a Cluster each name has a hash tag, `s:{tag}…`: all keys of a subject share a slot. The id of an adopted token comes from the token, and leads
 * to another slot: there a:<id> says where its session is.
 */
export class Keys {
  readonly prefix: string
  readonly pending: string
  /** Whether keys have hash tags. */
  readonly cluster: boolean

  constructor (prefix: string, cluster: boolean) {
    this.prefix = prefix
    this.pending = `${prefix}q`
    this.cluster = cluster
  }

  /** @param tag of the slot where it is kept */
  session (id: string, tag = this.tagOfId(id)): string {
    return this.#named('s', id, tag)
  }

  use (id: string, tag = this.tagOfId(id)): string {
    return this.#named('u', id, tag)
  }

  /** `sessions`, `once`, and operations `underWay`, by subject; both set aside, and that it was done, by operation. */
  subject (subject: Subject, op = ''): { sessions: string, once: string, done: string, sessionsAside: string, onceAside: string, underWay: string } {
    const tag = this.tagOfSubject(subject)
    const lines = tag + subjectLines(subject)
    const operation = `${lines}\n${JSON.stringify(op)}`
    const key = (kind: string, rest: string): string => `${this.prefix}${kind}:${rest}`
    return { sessions: key('x', lines), once: key('o', lines), done: key('c', operation), sessionsAside: key('cx', operation), onceAside: key('co', operation), underWay: key('ca', lines) }
  }

  /** Whose index a key is; null where it is none of ours, though it begins as they do. */
  subjectIn (index: string): Subject | null {
    try {
      const [tenant = '', sub = ''] = index.slice(this.prefix.length + 'x:'.length + this.tagIn(index).length).split('\n')
      const subject = { tenant: tenant === '' ? '' : String(JSON.parse(tenant)), sub: String(JSON.parse(sub)) }
      const { sessions, once } = this.subject(subject)
      return index === sessions || index === once ? subject : null
    } catch {
      return null
    }
  }

  /** Of sessions of all subjects of a tenant, in a slot of their own. */
  places (tenant: string, group: string): string {
    const digest = digestOf(tenant, group)
    return this.kind('t') + (this.cluster ? `{${digest}}` : digest)
  }

  /** Of sessions of all subjects, by what they have in common. */
  index (name: string, value: string): string {
    return `${this.kind('i')}${name}:${createHash('sha256').update(value).digest('base64url').slice(0, DIGEST)}`
  }

  mark (purpose: string, key: string): string {
    const digest = digestOf(purpose, key)
    return this.kind('d') + (this.cluster ? `{${digest.slice(0, 1)}}${digest.slice(1)}` : digest)
  }

  /** In a Cluster, in whichever slot its name leads to. */
  document (purpose: string, key: string): string {
    return this.kind('v') + digestOf(purpose, key)
  }

  /** What one process does at a time. */
  lease (name: string): string {
    return this.kind('l') + name
  }

  /** Since when marks are kept, in each slot where some are. */
  get births (): string[] {
    return this.cluster ? Array.from(ALPHABET, character => `${this.kind('b')}{${character}}`) : [this.kind('b')]
  }

  /** @param mark the key of one */
  birthOf (mark: string): string {
    return this.kind('b') + this.tagIn(mark)
  }

  /** The hash tag of a minted id, which begins as its subject's; '' where there are none. */
  tagOfId (id: string): string {
    return this.cluster ? `{${id.slice(0, TAG)}}` : ''
  }

  tagOfSubject (subject: Subject): string {
    return this.cluster ? `{${tagOf(subject)}}` : ''
  }

  /** In a Cluster, in the slot of an adopted token's id: which slot its session is kept in. */
  pointer (id: string): string {
    return this.#named('a', id, this.tagOfId(id))
  }

  /** The hash tag in a key. */
  tagIn (key: string): string {
    return this.cluster ? key.slice(this.prefix.length + 's:'.length, key.indexOf('}') + 1) : ''
  }

  /** The id that a key of a session names. */
  idOf (key: string): string {
    const name = key.slice(this.prefix.length + 's:'.length)
    if (!this.cluster) return name
    const [tag, rest] = [name.slice(1, 1 + TAG), name.slice(TAG + 2)]
    return rest.length + TAG === 24 ? tag + rest : rest
  }

  /** How the keys of a kind begin. */
  kind (kind: string): string {
    return `${this.prefix}${kind}:`
  }

  /**
   * Everything of a kind, as SCAN takes it.
   *
   * @param kind a letter, or some as `[xo]`
   */
  pattern (kind: string): string {
    return `${this.prefix.replace(/[\\*?[\]]/g, '\\$&')}${kind}:*`
  }

  #named (kind: string, id: string, tag: string): string {
    return `${this.prefix}${kind}:${tag}${tag !== '' && tag.slice(1, 1 + TAG) === id.slice(0, TAG) ? id.slice(TAG) : id}`
  }
}

/** In UTF-16, which tells halves of surrogate pairs apart: a claim of a JWT may hold them. */
function digestOf (purpose: string, key: string): string {
  return createHash('sha256').update(`${purpose.length}:${purpose}${key}`, 'utf16le').digest('base64url').slice(0, DIGEST)
}

/** Whether text can be the id of a session. */
export function isId (text: string): boolean {
  return ID.test(text)
}
