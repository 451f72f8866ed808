/** The SDK, for those who install server and client together. */
export * from "@leasehold/client";
