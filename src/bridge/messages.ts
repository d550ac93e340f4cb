import { type LogMessage, logLevels } from '../contract/error-report.ts'
import { encodeFrame, type Field, FrameReader, ProtocolError, protocolVersion } from './frame.ts'

/** One setting of the server, as text. */
export interface ServerSetting {
  name: string
  value: string
}

/** What the server's end says: PROTOCOL.md. */
export type FromServer =
  | ({ type: 'hello' } & Hello)
  | ({ type: 'settings' } & ServerSettings)
  | { type: 'check'; request: number }
  | { type: 'archive'; request: number; timeoutMs: number; file: string; path: string }
  | { type: 'ping' }
  | { type: 'quit'; timeoutMs: number }

export interface ServerSettings {
  /** In force; what has not been declared yet is as written. */
  settings: ServerSetting[]
  /** Path of the server's configuration file, from the data directory where it is in there. */
  configFile: string
  archiveAhead: number
  /** MiB; 0 for none. */
  memoryLimit: number
}

export interface Hello extends ServerSettings {
  serverVersionNum: number
  walSegmentSize: number
  walPageMagic: number
  systemIdentifier: string
  /** `undefined` where its path is not UTF-8. */
  dataDirectory: string | undefined
  dynamicLibraryPath: string
  module: string
}

/** What we say. */
export type ToServer =
  | { type: 'ready' }
  | ({ type: 'declare' } & SettingDeclaration)
  | { type: 'reserve'; prefix: string }
  | { type: 'log'; message: LogMessage }
  | { type: 'checked'; request: number; configured: boolean; detail: string }
  | { type: 'archived'; request: number; archived: boolean; file: string }
  | { type: 'pong' }

/** A setting of the module, for the server to make a real one of. */
export interface SettingDeclaration {
  kind: 'bool' | 'int' | 'real' | 'string' | 'enum'
  name: string
  shortDesc: string
  longDesc: string
  context: string
  flags: readonly string[]
  bootValue: string
  min: string
  max: string
  options: readonly string[]
}

// More settings than any server has; a count beyond it is damage.
const settingsMax = 10_000

/** Throws a `ProtocolError` for anything but a frame of the server's end, whole and without a byte left over. */
export function decodeFromServer(type: string, payload: Buffer): FromServer {
  const reader = new FrameReader(payload)
  const message = readFromServer(type, reader)
  reader.end()
  return message
}

function readFromServer(type: string, reader: FrameReader): FromServer {
  switch (type) {
    case 'H': {
      const version = reader.int32()
      if (version !== protocolVersion) {
        throw new ProtocolError(
          `the library in the server speaks version ${version} of the protocol, this is ${protocolVersion}: run "pgarchivist install"`,
        )
      }
      return {
        type: 'hello',
        serverVersionNum: inRange('server version', reader.int32(), 150_000, int32Max),
        walSegmentSize: segmentSize(reader.int32()),
        walPageMagic: inRange('WAL page magic', reader.int32(), 0, 0xffff),
        systemIdentifier: reader.string(),
        dataDirectory: reader.path(),
        dynamicLibraryPath: reader.string(),
        module: reader.string(),
        ...readSettings(reader),
      }
    }
    case 'S':
      return { type: 'settings', ...readSettings(reader) }
    case 'C':
      return { type: 'check', request: requestNumber(reader.int32()) }
    case 'A':
      return {
        type: 'archive',
        request: requestNumber(reader.int32()),
        timeoutMs: inRange('time', reader.int32(), 0, int32Max),
        file: archiveFile(reader.string()),
        path: absolutePath(reader.string()),
      }
    case 'P':
      return { type: 'ping' }
    case 'Q':
      return { type: 'quit', timeoutMs: inRange('time', reader.int32(), 0, int32Max) }
    default:
      throw new ProtocolError(`frames of type ${JSON.stringify(type)} do not exist`)
  }
}

function readSettings(reader: FrameReader): ServerSettings {
  const count = reader.int32()
  if (count < 0 || count > settingsMax) throw new ProtocolError(`${count} settings are not possible`)
  const settings: ServerSetting[] = []
  for (let i = 0; i < count; i++) settings.push({ name: reader.string(), value: reader.string() })
  return {
    settings,
    configFile: reader.string(),
    archiveAhead: inRange('number of files ahead', reader.int32(), 1, 64),
    memoryLimit: inRange('memory limit', reader.int32(), 0, int32Max),
  }
}

const int32Max = 2_147_483_647
const segmentSizeMin = 1024 * 1024
const segmentSizeMax = 1024 * 1024 * 1024

function inRange(what: string, value: number, min: number, max: number): number {
  if (value < min || value > max) throw new ProtocolError(`${value} is not possible as ${what}`)
  return value
}

const requestNumber = (value: number) => inRange('request number', value, 1, int32Max)

function segmentSize(bytes: number): number {
  inRange('segment size', bytes, segmentSizeMin, segmentSizeMax)
  if ((bytes & (bytes - 1)) !== 0) throw new ProtocolError(`${bytes} is not possible as segment size`)
  return bytes
}

// The server archives what has a .ready file, by its own rule for names: at most 40 of these characters.
function archiveFile(name: string): string {
  if (!/^[0-9A-F.historybackuppartial]{16,40}$/.test(name))
    throw new ProtocolError(`"${name}" is not the name of a file to archive`)
  return name
}

function absolutePath(text: string): string {
  if (!text.startsWith('/')) throw new ProtocolError(`"${text}" is not an absolute path`)
  return text
}

export function encodeToServer(message: ToServer): Buffer {
  switch (message.type) {
    case 'ready':
      return encodeFrame('r', [protocolVersion])
    case 'declare':
      return encodeFrame('d', declarationFields(message))
    case 'reserve':
      return encodeFrame('v', [message.prefix])
    case 'log': {
      const { level, errcode, errmsg, errdetail, errhint } = message.message
      // What a worker or a module without a compiler says may be anything.
      const knownLevel = logLevels.includes(level) ? level : 'LOG'
      const sqlstate = /^[0-9A-Z]{5}$/.test(errcode ?? '') ? (errcode ?? '') : ''
      const texts = [errmsg, errdetail, errhint].map(text => shortened(text, textBytesMax))
      return encodeFrame('l', [knownLevel, sqlstate, ...texts])
    }
    case 'checked':
      return encodeFrame('c', [
        message.request,
        message.configured,
        shortened(message.detail, checkDetailBytesMax),
      ])
    case 'archived':
      return encodeFrame('a', [message.request, message.archived, message.file])
    case 'pong':
      return encodeFrame('p', [])
    default:
      return message satisfies never
  }
}

function declarationFields(declaration: SettingDeclaration): Field[] {
  const { kind, name, shortDesc, longDesc, context, flags, bootValue, min, max, options } = declaration
  const descriptions = [shortDesc, longDesc].map(text => shortened(text, descriptionBytesMax))
  const texts = [kind, name, ...descriptions, context, flags.join(' '), bootValue, min, max]
  return [...texts, options.length, ...options]
}

// A text that fills a screen several times over is no message any more, and a frame has a limit.
const textBytesMax = 16 * 1024
const descriptionBytesMax = 1_024
// The other end keeps no more of it.
const checkDetailBytesMax = 1_000

const ellipsis = '…'

/** Never ends within a character. */
function shortened(text: string | undefined, bytesMax: number): string {
  const whole = text ?? ''
  // No character takes fewer bytes than it has units, so that a very long text need not be looked at as a whole.
  const start = whole.slice(0, bytesMax)
  if (start.length === whole.length && Buffer.byteLength(whole) <= bytesMax) return whole
  const bytes = Buffer.from(start)
  let end = Math.min(bytes.length, bytesMax - Buffer.byteLength(ellipsis))
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return `${bytes.toString('utf8', 0, end)}${ellipsis}`
}
