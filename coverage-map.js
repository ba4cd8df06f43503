import { readdirSync } from 'node:fs'

const plugins = readdirSync('plugins', { recursive: true })
  // audit/ is being built: it joins when its tests are whole.
  .filter(file => file.endsWith('.ts') && !file.startsWith('audit'))
  .map(file => `plugins/${file}`)

/** Coverage is asked of plugins/, by all tests together. */
export default () => plugins
