/**
 * Who may do what: the seam between the transports and everything that decides it.
 *
 * A transport knows a `Peer`, asks `Access` who that is, and gets an `Identity` or a refusal. Whatever the peer then asks
 * for, the transport first pays for (`charge`) and has permitted (`permits`). To whom a lease belongs is the core's to
 * judge, as only the core knows it: it gets the `principal` with every command.
 */
import type { PeerCertificate } from "node:tls";
import { anybody, type Principal, type Refusal } from "../core/types.js";
import type { WireFailure } from "../rpc/errors.js";
import type { RouteFailure } from "../sequencer/routes.js";

/** What a transport knows of whoever calls. */
export interface Peer {
  /** The header of this name. */
  readonly authorization: string | undefined;
  /** The client's certificate, verified against the authorities that are trusted. */
  readonly certificate: PeerCertificate | undefined;
  /** "127.0.0.1:53000"; for the audit log. */
  readonly address: string;
  /** For the audit log. */
  readonly requestId: string;
}

/**
 * acquire: take locks, and whatever the holder of one does. observe: read and watch. admin: take locks away from others,
 * make backups, change the level of the log.
 */
export type Verb = "acquire" | "observe" | "admin";

/** What a policy is asked for. */
export interface Demand {
  readonly verb: Verb;
  /** This will do as well. */
  readonly or?: Verb;
  /** A lock, or all locks whose names begin with this; "" with `prefix`: all there are. */
  readonly name: string;
  readonly prefix: boolean;
}

/** More requests than a quota permits. */
export interface TooMany extends RouteFailure {
  /**
   * How long the transport keeps this refusal back, or does not read the stream that it is for, so that who asks for too
   * much does not keep the server busy with refusing.
   */
  readonly holdMs?: number;
  /** Of a frame: so many of its requests, the first ones, may be made nevertheless. Absent: none. */
  readonly admitted?: number;
}

/** What requests come in. */
export type Charged = "call" | "frame" | "connection" | "again";

/** Somebody who has been authenticated. */
export interface Identity {
  /** With the quota that it has now. */
  readonly principal: Principal;
  /** Null: permitted. Every refusal goes into the audit log. */
  permits(demand: Demand): Refusal | null;
  /** Whether it may observe or take the lock of this name; nobody is told of it. */
  sees(name: string): boolean;
  /**
   * Takes that many requests out of its quota. Null: they may be made; else nothing was taken, or of a frame what there
   * was. `by`: what they came in, by default a call; "connection": the first call by it, which costs more; "again": in a frame, on a
   * new stream of their session, which is never refused, and paid for by the time after it.
   */
  charge(requests: number, by?: Charged): TooMany | null;
  /**
   * A frame without requests is free of charge: whoever asks for too much keeps what it has. For how many ms its stream is
   * not to be read, as there are too many of them. `renewals`: that it, or the one before it, has brought about.
   */
  pace(renewals: number): number;
  /**
   * Calls back, at most once, when the credentials have run out or were withdrawn: whatever is open then ends with this
   * failure. Returns how to stop listening.
   */
  onWithdrawn(listener: (failure: WireFailure) => void): () => void;
}

export interface Access {
  /** Whether callers must say who they are. */
  readonly authentication: boolean;
  /** Says at once who it is, or later. Never rejects. Every failure goes into the audit log. */
  authenticate(peer: Peer): Identity | WireFailure | Promise<Identity | WireFailure>;
}

export const isIdentity = (answer: Identity | WireFailure): answer is Identity => "principal" in answer;

/** Whoever calls while authentication is off, and clients of the same process. */
export const everybody: Identity = {
  principal: anybody,
  permits: () => null,
  sees: () => true,
  charge: () => null,
  pace: () => 0,
  onWithdrawn: () => () => undefined,
};

const denied: Refusal = { kind: "refused", reason: "DENIED", message: "the caller is not known" };

/** Whoever was not admitted. */
export const nobody: Identity = { ...everybody, permits: () => denied, sees: () => false };

/** Without authentication: everybody may do everything. */
export const openAccess: Access = { authentication: false, authenticate: () => everybody };
