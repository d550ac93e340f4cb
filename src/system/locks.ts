/** Locks that the system frees when their owner ends, however it ends. */
export interface Locks {
  /**
   * Takes the lock that the file stands for, creating the file if need be, and writes `owner` into it; `undefined`
   * when somebody else holds it.
   */
  acquire(path: string, owner: string): Promise<Lock | undefined>
  /** Does somebody hold it? A file that does not exist is not held. */
  isHeld(path: string): Promise<boolean>
}

export interface Lock {
  release(): Promise<void>
}
