/** What the marker of a repository says. */
export interface Marker {
  /** Of the layout and of what it holds. */
  format: number
  /** Tells this repository from every other one. */
  id: string
}

/** What we read and write. */
export const repositoryFormat = 1

/** More than any marker has. */
export const markerBytesMax = 65_536

// A UUID. It gets into messages and into a file of ours.
const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export function encodeMarker(id: string, createdAt: string, writer: string): Uint8Array {
  const marker = { format: repositoryFormat, id, created_at: createdAt, writer }
  return Buffer.from(`${JSON.stringify(marker, null, 1)}\n`)
}

/** `undefined` for what is no marker. Unknown members are ignored. */
export function parseMarker(text: string): Marker | undefined {
  try {
    const { format, id } = JSON.parse(text) as Partial<Marker>
    const isRight = typeof format === 'number' && Number.isSafeInteger(format) && format > 0
    // Whatever a later format says instead is not for this version to judge.
    if (isRight && format > repositoryFormat) return { format, id: String(id) }
    return isRight && typeof id === 'string' && idPattern.test(id) ? { format, id } : undefined
  } catch {
    return undefined
  }
}
