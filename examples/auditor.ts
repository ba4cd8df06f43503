// An outside auditor: follows a log for ever, and says when it is not what it was. It trusts the public keys alone, and keeps the last checkpoint.
//
//   npx tsx examples/auditor.ts https://example.com/audit <token with the scope audit:read> <public key>…
import { setTimeout } from 'node:timers/promises'
import { openNote, parseCheckpoint, verifyConsistency, type CheckpointBody } from 'fastify-token-registry/audit/verify'

export interface Followed {
  url: string
  token: string
  /** As `app.audit.vkeys` gives them. */
  vkeys: readonly string[]
  /** ms between looks */
  every: number
}

/** Checkpoints, each of which begins with the one before. @throws where one does not, or is not signed */
export async function * follow ({ url, token, vkeys, every }: Followed): AsyncGenerator<CheckpointBody> {
  const ask = async (path: string): Promise<Response> => {
    const response = await fetch(url + path, { headers: { authorization: `Bearer ${token}` } })
    if (!response.ok) throw new Error(`${path} was answered by ${response.status}`)
    return response
  }
  for (let known: CheckpointBody | null = null; ; await setTimeout(every)) {
    const signed = openNote(await (await ask('/checkpoint')).text(), vkeys)
    const now = signed && parseCheckpoint(signed.text)
    if (now === null) throw new Error('the checkpoint is not signed by a trusted key')
    if (known !== null) {
      if (now.size < known.size) throw new Error(`the log had ${known.size} entries, and has ${now.size}`)
      const { proof } = await (await ask(`/proof/consistency?from=${known.size}&to=${now.size}`)).json() as { proof: string[] }
      const begins = verifyConsistency({ from: known.size, to: now.size, proof: proof.map(hash => Buffer.from(hash, 'base64')), fromRoot: known.root, toRoot: now.root })
      if (!begins) throw new Error(`the log of ${now.size} entries does not begin with that of ${known.size}: it was written anew`)
    }
    yield known = now
  }
}

const [url, token, ...vkeys] = process.argv.slice(2)
if (url?.startsWith('http') && token !== undefined) {
  for await (const { size, root } of follow({ url, token, vkeys, every: 10_000 })) console.log(new Date().toISOString(), size, root.toString('base64'))
}
