/** Other processes, as a parameter: command lines of the user, and programs of our own that run beside us. */
export interface Processes {
  /**
   * Runs a command line with `/bin/sh -c` and resolves with how it ended. It reads nothing and writes where we write.
   * Rejects when the shell could not be started at all.
   */
  shell(command: string, options: ShellOptions): Promise<ProcessEnd>
  /** Starts a program of ours that can be talked to. Whatever goes wrong is told by how it ends, never thrown. */
  fork(program: string, options: ForkOptions): ForkedProcess
}

export interface ShellOptions {
  cwd: string
  /** When aborted, the command and what it started are asked to end (SIGTERM), and killed half a second later. */
  signal?: AbortSignal
}

/** How a process ended: with a status, or by a signal. */
export type ProcessEnd = { code: number; signal: null } | { code: null; signal: NodeJS.Signals }

export interface ForkOptions {
  cwd: string
  /** What the process list shows. */
  title: string
  /** Told each message, as structured clone made it, in order. None comes after `ended`. */
  onMessage: (message: unknown) => void
}

/** A program that we started. It ends when we end, however we end and whatever it is doing. */
export interface ForkedProcess {
  /** `undefined` when it could not be started. */
  readonly pid: number | undefined
  /**
   * Resolves when the message is on its way, or never will be because the process has ended. Rejects when structured
   * clone cannot copy it. A sender that waits for it keeps no queue for a process that does not read.
   */
  send(message: unknown): Promise<void>
  /** Ends it at once, whatever it is doing. Nothing happens when it has ended already. */
  kill(): void
  /** Resolves once, with how it ended; with what prevented the start when there never was a process. Never rejects. */
  readonly ended: Promise<ProcessEnd | StartFailure>
}

/** Why there is no process. */
export interface StartFailure {
  startFailure: Error
}

/** The other end of `ForkedProcess`: what the forked program sees of the process that started it. */
export interface ParentProcess {
  /** To be called before anything is awaited: what comes earlier than the first listener is lost. */
  onMessage(listener: (message: unknown) => void): void
  /** Resolves when the message is on its way. In order; one that can no longer be sent is dropped. */
  send(message: unknown): Promise<void>
}
