export { TreeAppender, type TreeReader } from './appender.ts'
export { consistencyProof, inclusionProof, rootAt, type HashReader } from './proofs.ts'
export { TILE } from './tile.ts'
