/** What an archiver tells those who watch it: statistics, the process title, the supervisor. */
export interface ArchiverEvents {
  /** An attempt begins. */
  archiving(file: string): void
  /** An attempt succeeded, and the file is stored durably. */
  archived(file: string): void
  /** An attempt failed. */
  failed(file: string): void
  /** Nothing is left to do for now: a good moment for what can wait. */
  idle(): void | Promise<void>
}
