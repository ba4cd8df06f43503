import { PerformanceObserver } from 'node:perf_hooks'
import { setImmediate, setTimeout as after } from 'node:timers/promises'

/**
 * Watches the event loop, with all that the core can give.
 *
 * @param isOver is asked at each thousandth look
 * @returns the longest time between two looks: ms that this process itself took, garbage collection left out
 */
export async function longestPause (isOver: () => boolean | Promise<boolean>): Promise<number> {
  const pauses: Array<{ from: number, to: number }> = []
  const collector = new PerformanceObserver(list => {
    for (const { startTime, duration } of list.getEntries()) pauses.push({ from: startTime, to: startTime + duration })
  })
  collector.observe({ entryTypes: ['gc'] })

  const slices: Array<{ from: number, to: number, cpu: number }> = []
  let [seen, used] = [performance.now(), process.cpuUsage()]
  for (let looks = 0; looks % 1000 > 0 || !await isOver(); looks++) {
    await setImmediate()
    const [now, cpu] = [performance.now(), process.cpuUsage()]
    // While another process had the core, ours took no time of it.
    if (now - seen > 1) slices.push({ from: seen, to: now, cpu: (cpu.user - used.user + cpu.system - used.system) / 1000 })
    seen = now
    used = cpu
  }
  // The observer is told late.
  await after(100)
  collector.disconnect()

  return Math.max(0, ...slices.map(({ from, to, cpu }) => {
    const collecting = pauses.reduce((sum, pause) => sum + Math.max(0, Math.min(to, pause.to) - Math.max(from, pause.from)), 0)
    return Math.min(to - from, cpu) - collecting
  }))
}
