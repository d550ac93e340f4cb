/**
 * How much of an object goes in one request: so much that few are needed, and little enough that several fit into memory.
 * A segment of 16 MiB that could not be compressed has two such parts, with metadata and encryption.
 */
export const partBytesDefault = 8 * 1024 ** 2 + 64 * 1024
