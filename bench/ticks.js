import { createHook } from 'node:async_hooks'

/*
 * Loaded before anything else: keeps one of the objects that `process.nextTick` makes. Where a garbage collection finds none of them alive,
 * V8 forgets their shape, and in Node 20 every later call takes half a microsecond more for as long as the process lives: up to a third of
 * a request. Whether that happens is chance, and would say more of when garbage was collected than of what is compared.
 */
export const kept = []

const hook = createHook({ init (id, type, trigger, resource) { kept.push(resource) } }).enable()
process.nextTick(() => {})
hook.disable()
