import type { LogMessage } from '../contract/error-report.ts'
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
  /** Path of the server's configuration file. */
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
  dataDirectory: string
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
        serverVersionNum: reader.int32(),
        walSegmentSize: reader.int32(),
        walPageMagic: reader.int32(),
        systemIdentifier: reader.string(),
        dataDirectory: reader.string(),
        dynamicLibraryPath: reader.string(),
        module: reader.string(),
        ...readSettings(reader),
      }
    }
    case 'S':
      return { type: 'settings', ...readSettings(reader) }
    case 'C':
      return { type: 'check', request: reader.int32() }
    case 'A':
      return {
        type: 'archive',
        request: reader.int32(),
        timeoutMs: reader.int32(),
        file: reader.string(),
        path: reader.string(),
      }
    case 'P':
      return { type: 'ping' }
    case 'Q':
      return { type: 'quit', timeoutMs: reader.int32() }
    default:
      throw new ProtocolError(`frames of type ${JSON.stringify(type)} do not exist`)
  }
}

function readSettings(reader: FrameReader): ServerSettings {
  const count = reader.int32()
  if (count < 0 || count > settingsMax) throw new ProtocolError(`${count} settings are not possible`)
  const settings: ServerSetting[] = []
  for (let i = 0; i < count; i++) settings.push({ name: reader.string(), value: reader.string() })
  return { settings, configFile: reader.string(), archiveAhead: reader.int32(), memoryLimit: reader.int32() }
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
      return encodeFrame('l', [level, errcode ?? '', ...[errmsg, errdetail, errhint].map(shortened)])
    }
    case 'checked':
      return encodeFrame('c', [message.request, message.configured, shortened(message.detail)])
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
  const texts = [kind, name, shortDesc, longDesc, context, flags.join(' '), bootValue, min, max]
  return [...texts, options.length, ...options]
}

// A text that fills a screen several times over is no message any more, and a frame has a limit.
const textCharactersMax = 8_192

function shortened(text: string | undefined): string {
  return (text ?? '').slice(0, textCharactersMax)
}
