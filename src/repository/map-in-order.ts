/**
 * Works on several items at once and hands over the results in the order of the items. No more than `atOnce` items are
 * held at any time, however many there are. `work` should not throw: what it throws ends everything.
 */
export async function* mapInOrder<Item, Result>(
  items: AsyncIterable<Item>,
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const underWay: Promise<Result>[] = []
  try {
    for await (const item of items) {
      const result = work(item)
      // It is waited for below, perhaps after another one has failed.
      result.catch(() => undefined)
      underWay.push(result)
      const first = underWay.length < atOnce ? undefined : underWay.shift()
      if (first !== undefined) yield await first
    }
    for (let first = underWay.shift(); first !== undefined; first = underWay.shift()) yield await first
  } finally {
    await Promise.allSettled(underWay)
  }
}
