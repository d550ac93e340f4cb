/** Files of TypeScript and JavaScript that are brought into this process, as a parameter. */
export interface ModuleFiles {
  /** The file that an npm package is imported from, seen from where pgarchivist is installed. */
  packageFile(name: string): string | undefined
  /**
   * Runs a file and gives its exports. A `.ts` file is taken as it is, wherever it lies. Rejects with a
   * `ModuleLoadError` when it cannot be run, and with whatever it throws when it is running. A process runs a file
   * once, as Node does: another version of it needs another process. Not to be called again before it has settled.
   */
  load(path: string): Promise<ModuleExports>
}

export type ModuleExports = Readonly<Record<string, unknown>>

/** Why a file, or one that it imports, is not a module that can be run. */
export class ModuleLoadError extends Error {
  override readonly name = 'ModuleLoadError'
  /** Where the fault is: not necessarily the file that was asked for. */
  readonly file: string | undefined
  readonly line: number | undefined
  /** What the author can write instead. */
  readonly remedy: string | undefined

  constructor(
    problem: string,
    fault: { file?: string; line?: number | undefined; remedy?: string | undefined },
  ) {
    super(problem)
    this.file = fault.file
    this.line = fault.line
    this.remedy = fault.remedy
  }
}
