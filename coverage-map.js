import { readdirSync } from 'node:fs'

const plugins = readdirSync('plugins', { recursive: true })
  .filter(file => file.endsWith('.ts'))
  .map(file => `plugins/${file}`)

/** Coverage is asked of plugins/, by all tests together. */
export default () => plugins
