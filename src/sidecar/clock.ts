/** The machine's monotonic clock, which all processes under one kernel share: `time.monotonic()` in Python is the same. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;
