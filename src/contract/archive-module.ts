/**
 * What an archive module is: PostgreSQL's chapter "Archive Modules", in TypeScript, under its own names.
 *
 * A module is one `.ts` file that exports `_PG_archive_module_init`. It needs to import nothing but types:
 * everything that it uses at run time is handed to it as `server`.
 *
 * ```ts
 * import type { ArchiveModuleCallbacks, ArchiveServer } from 'pgarchivist'
 *
 * export function _PG_archive_module_init(server: ArchiveServer): ArchiveModuleCallbacks {
 *   return {
 *     async archive_file_cb(state, file, path) {
 *       // store the file at `path` under the name `file`, make it durable, and only then:
 *       return true
 *     },
 *   }
 * }
 * ```
 */
import type { ArchiveServer } from './archive-server.ts'

/** The one required export of a module, called once, right after the module is loaded. */
export type ArchiveModuleInit<S = unknown> = (
  server: ArchiveServer,
) => ArchiveModuleCallbacks<S> | Promise<ArchiveModuleCallbacks<S>>

/** What the callbacks share. `private_data` is the module's own; it starts as `undefined`. */
export interface ArchiveModuleState<S = unknown> {
  private_data: S | undefined
}

/** What a call of `archive_file_cb` gets beside the file. */
export interface ArchiveFileContext {
  /**
   * Aborted when nobody waits for the answer any more: the archiver is being stopped and its patience has
   * ended. A module that passes it on to what it waits for stops without being killed.
   */
  readonly signal: AbortSignal
}

/**
 * The callbacks of a module, those of `ArchiveModuleCallbacks` in PostgreSQL's `archive/archive_module.h`.
 * Only `archive_file_cb` is required. Each may be synchronous or return a promise. They are never called at
 * the same time, unless the module asks for it with `archive_ahead`.
 *
 * An exception in any of them is an ERROR: it is logged with its DETAIL and HINT. In `archive_file_cb` it
 * counts as a failed attempt and archiving goes on; in `startup_cb` and `check_configured_cb` it ends the
 * archiver, which is then started again, as in the server.
 */
export interface ArchiveModuleCallbacks<S = unknown> {
  /** Called once, before any other callback: allocate what the others need, in `state.private_data`. */
  startup_cb?(state: ArchiveModuleState<S>): void | Promise<void>

  /**
   * Is the module ready to archive? Called before every attempt, so it has to be quick. Without it, the module
   * counts as configured. When it answers `false`, nothing is archived, a WARNING says so, and
   * `server.arch_module_check_errdetail` may add why; WAL piles up until it answers `true`.
   */
  check_configured_cb?(state: ArchiveModuleState<S>): boolean | Promise<boolean>

  /**
   * Archive one file. `file` is its name (a segment, a timeline history, a backup history or a partial
   * segment), `path` the absolute path to read it from; the working directory is the data directory.
   *
   * Exactly `true` means: the file would survive a power cut where it is now. The server may then recycle it
   * at once. Anything else means that it was not archived, and it will be submitted again: the same file can
   * come any number of times, also after a success that a crash made the server forget. So a module accepts a
   * file that it already has with the same content, and must never replace one that has other content.
   */
  archive_file_cb(
    state: ArchiveModuleState<S>,
    file: string,
    path: string,
    context: ArchiveFileContext,
  ): boolean | Promise<boolean>

  /** Called once when the archiver ends in an orderly way or changes to another library. Not after a crash. */
  shutdown_cb?(state: ArchiveModuleState<S>): void | Promise<void>

  /**
   * May `archive_file_cb` be called for several files at once, later files before the server asks for them?
   * The default is `false`: one file at a time, in the server's order.
   */
  archive_ahead?: boolean
}
