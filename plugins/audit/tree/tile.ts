/** Hashes of a tile: eight levels of the tree. */
export const TILE = 256
export const TILE_HEIGHT = 8
