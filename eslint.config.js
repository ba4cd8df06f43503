import neostandard from 'neostandard'
import { importArrows } from './eslint-import-arrows.js'

export default [
  ...neostandard({ ts: true, ignores: ['dist', 'coverage', '.tap', '.data'] }),
  {
    files: ['plugins/**/*.ts', 'app/**/*.ts', 'examples/**/*.ts'],
    plugins: { project: { rules: { 'import-arrows': importArrows } } },
    rules: { 'project/import-arrows': 'error' }
  }
]
