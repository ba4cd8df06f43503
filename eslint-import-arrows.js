import { dirname, relative, resolve, sep } from 'node:path'

const root = import.meta.dirname
const packageName = 'fastify-token-registry'
const core = 'plugins/token-registry'
// Plugins that export routes have them strict, wherever they are mounted.
const open = [`${core}/index.ts`, 'plugins/strict-input/index.ts']
// A contract says what a plugin is given: its types.
const openTo = { 'plugins/testing': [...open, 'plugins/audit/index.ts'] }

/**
 * Which way imports run: `app, examples → plugins → plugins/token-registry`.
 *
 * A plugin reaches out of its own folder only to the core's `index.ts`, and to that of strict-input, testing also to that of audit, the core reaches nothing, and
 * app/ and examples/ import the package by its name, as a stranger would.
 */
export const importArrows = {
  meta: {
    type: 'problem',
    schema: [],
    messages: { arrow: '{{ from }} may not import {{ to }}: {{ rule }}' }
  },
  create (context) {
    const file = relative(root, context.filename).split(sep).join('/')
    const home = homeOf(file)

    return {
      ImportDeclaration: check,
      ImportExpression: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      TSImportType: check
    }

    function check (node) {
      // Of a template, what it begins with tells where it leads.
      const specifier = node.source?.value ?? node.source?.quasis?.[0].value.cooked
      if (typeof specifier !== 'string') return
      const rule = fault(specifier)
      if (rule !== null) context.report({ node, messageId: 'arrow', data: { from: home, to: specifier, rule } })
    }

    function fault (specifier) {
      if (specifier === packageName || specifier.startsWith(`${packageName}/`)) {
        return home.startsWith('plugins/') ? 'a plugin imports by path, not by the name of the package' : null
      }
      if (!specifier.startsWith('.')) return null

      const target = relative(root, resolve(dirname(context.filename), specifier)).split(sep).join('/')
      if (target.startsWith(`${home}/`)) return null
      if (!home.startsWith('plugins/')) return `use '${packageName}/…', as a stranger would`
      if (home === core) return 'token-registry imports no other plugin'
      const allowed = openTo[home] ?? open
      return allowed.includes(target) ? null : `a plugin imports only its own files and ${allowed.join(' or ')}`
    }
  }
}

function homeOf (file) {
  const [top, plugin] = file.split('/')
  return top === 'plugins' ? `${top}/${plugin}` : top
}
