// Who is let in and who is not, over the wire: on unary calls, on sessions and on watches.
import { createHash } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { credentials } from "@grpc/grpc-js";
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { certificateAuthority } from "../services/certificates.mjs";
import { describeWithServices } from "../services/vitest.js";
import {
  answers,
  attach,
  call,
  connection,
  everywhere,
  expectNoSecretLogged,
  file,
  secret,
  serve,
  tokenLine,
  watchAll,
} from "./support.js";

afterAll(expectNoSecretLogged);

const unknown = everywhere("UNAUTHENTICATED: the bearer token is not known");
const expired = everywhere("UNAUTHENTICATED: the bearer token has expired");
const malformed = everywhere("UNAUTHENTICATED: the authorization header is no bearer token");
const missing = everywhere(
  "UNAUTHENTICATED: this server wants to know who calls: a bearer token or a client certificate",
);
const ok = everywhere("OK");

const bearer = (token: string) => ({ authorization: `Bearer ${secret(token)}` });

describe("bearer tokens", () => {
  it("lets in whoever has one that is known and good, and nobody else", async () => {
    const good = "lh_good-good-good-good-good-good-good-good-good";
    const other = "lh_other-other-other-other-other-other-other-ot";
    const old = "lh_old-old-old-old-old-old-old-old-old-old-old-o";
    const authTokens = file(
      tokenLine("ci", good) +
        tokenLine("ci", other, "2999-01-31T00:00:00Z") +
        tokenLine("old", old, "2020-01-31T00:00:00Z"),
    );
    const { address } = await serve({ authTokens });
    expect(await answers(address, bearer(good))).toEqual(ok);
    expect(await answers(address, bearer(other))).toEqual(ok);
    expect(await answers(address, { authorization: `bearer  ${good}` })).toEqual(ok);
    expect(await answers(address)).toEqual(missing);
    expect(await answers(address, bearer(old))).toEqual(expired);
    expect(await answers(address, bearer(`${good}x`))).toEqual(unknown);
    expect(await answers(address, bearer("lh_nobody-has-been-given-this-one-by-anybody"))).toEqual(unknown);
    // What is in the file is no token.
    expect(await answers(address, bearer(createHash("sha256").update(good).digest("hex")))).toEqual(unknown);
    for (const authorization of ["Bearer", good, `Basic ${good}`, `Bearer ${good} ${good}`]) {
      expect({ authorization, ...(await answers(address, { authorization })) }).toEqual({
        authorization,
        ...malformed,
      });
    }
  });

  it("ends what is open when a token expires, and then refuses it", async () => {
    const token = "lh_short-short-short-short-short-short-short-sh";
    const expires = new Date(Date.now() + 1_500).toISOString();
    const { address } = await serve({ authTokens: file(tokenLine("ci", token, expires)) });
    const client = connection(address, {});
    onTestFinished(() => client.close());
    const open = [attach(client, bearer(token)), watchAll(client, bearer(token))];
    for (const stream of open) expect(await stream.first).toBe("OK");
    for (const stream of open) expect(await stream.end).toMatch(/^UNAUTHENTICATED: /);
    expect(await answers(address, bearer(token))).toEqual(expired);
  });

  it("ends what is open when a token is taken out of the file, at the next look, and nobody else's", async () => {
    const [gone, kept] = [
      "lh_gone-gone-gone-gone-gone-gone-gone-gone-gon",
      "lh_kept-kept-kept-kept-kept-kept-kept-kept-kep",
    ];
    const authTokens = file(tokenLine("gone", gone) + tokenLine("kept", kept));
    const { address } = await serve({ authTokens });
    const client = connection(address, {});
    onTestFinished(() => client.close());
    const ending = [attach(client, bearer(gone)), watchAll(client, bearer(gone))];
    const staying = [attach(client, bearer(kept)), watchAll(client, bearer(kept))];
    for (const stream of [...ending, ...staying]) expect(await stream.first).toBe("OK");
    writeFileSync(`${authTokens}.new`, tokenLine("kept", kept));
    renameSync(`${authTokens}.new`, authTokens);
    for (const stream of ending) expect(await stream.end).toMatch(/^UNAUTHENTICATED: /);
    expect(await call(client, bearer(gone))).toBe(unknown.unary);
    expect(await call(client, bearer(kept))).toBe("OK");
    const still = Symbol("still open");
    for (const stream of staying) expect(await Promise.race([stream.end, Promise.resolve(still)])).toBe(still);
  });

  it("goes on with the tokens that it had while the file is wrong, and says which line is", async () => {
    const [good, next] = [
      "lh_good-good-good-good-good-good-good-good-goo",
      "lh_next-next-next-next-next-next-next-next-nex",
    ];
    const authTokens = file(tokenLine("ci", good));
    const server = await serve({ authTokens }, { reloadPollMs: 3_600_000 });
    writeFileSync(
      authTokens,
      `${tokenLine("ci", next)}ci ${secret("lh_somebody-put-the-token-itself-here-by-mistake")}\n`,
    );
    await server.reload();
    expect(server.log).toContain("line 2");
    expect(await answers(server.address, bearer(good))).toEqual(ok);
    expect(await answers(server.address, bearer(next))).toEqual(unknown);
    writeFileSync(authTokens, tokenLine("ci", next));
    await server.reload();
    expect(await answers(server.address, bearer(good))).toEqual(unknown);
    expect(await answers(server.address, bearer(next))).toEqual(ok);
  });

  it("refuses to administer, as nobody is named an administrator", async () => {
    const token = "lh_good-good-good-good-good-good-good-good-good";
    const { address } = await serve({ authTokens: file(tokenLine("ci", token)) });
    const client = connection(address, {});
    onTestFinished(() => client.close());
    const path = "/leasehold.v1.AdminService/ForceRelease";
    expect(await call(client, bearer(token), path)).toMatch(/^DENIED: /);
  });
});

describe("JSON Web Tokens", () => {
  const pairs = { ec: "ES256", rsa: "RS256", pss: "PS256", ed: "EdDSA" } as const;
  type Name = keyof typeof pairs;
  const keys = {} as Record<Name | "foreign", Awaited<ReturnType<typeof generateKeyPair>>>;
  let jwks: string;
  let rsaPublicKey: string;

  const jwkOf = async (name: Name) => ({ ...(await exportJWK(keys[name].publicKey)), kid: name, alg: pairs[name] });
  beforeAll(async () => {
    for (const [name, alg] of Object.entries(pairs))
      keys[name as Name] = await generateKeyPair(alg, { extractable: true });
    keys.foreign = await generateKeyPair("ES256");
    jwks = JSON.stringify({ keys: await Promise.all(Object.keys(pairs).map((name) => jwkOf(name as Name))) });
    rsaPublicKey = await exportSPKI(keys.rsa.publicKey);
  });

  const nowSeconds = () => Math.floor(Date.now() / 1_000);
  const claims = (changed: JWTPayload = {}): JWTPayload => ({
    ...{ iss: "https://issuer.test", aud: "leasehold", sub: "ci", exp: nowSeconds() + 60 },
    ...changed,
  });
  const signed = (payload = claims(), name: keyof typeof keys = "ec", header: { kid?: string } = { kid: name }) => {
    const alg = name === "foreign" ? "ES256" : pairs[name];
    return new SignJWT(payload).setProtectedHeader({ alg, ...header }).sign(keys[name].privateKey);
  };
  const options = (set: Record<string, unknown> = {}) => ({
    ...{ authJwks: file(jwks), authJwtIssuer: "https://issuer.test", authJwtAudience: "leasehold" },
    ...set,
  });

  it("lets in whom the issuer vouches for, whatever the algorithm", async () => {
    const { address } = await serve(options());
    for (const name of Object.keys(pairs)) {
      const token = await signed(claims(), name as Name);
      expect(await answers(address, bearer(token))).toEqual(ok);
      expect(await answers(address, bearer(token))).toEqual(ok); // from what it remembers
    }
    expect(await answers(address, bearer(await signed(claims({ aud: ["x", "leasehold"] }))))).toEqual(ok);
    expect(await answers(address, bearer(await signed(claims(), "ec", {})))).toEqual(ok);
    expect(await answers(address, bearer(await signed(claims({ exp: nowSeconds() - 20 }))))).toEqual(ok);
    expect(await answers(address, bearer(await signed(claims({ nbf: nowSeconds() + 20 }))))).toEqual(ok);
  });

  it("lets in nobody else, and says nothing of why", async () => {
    const { address } = await serve(options());
    const { exp: _, ...endless } = claims();
    const { sub: __, ...nameless } = claims();
    const good = await signed();
    const [header = "", payload = "", signature = ""] = good.split(".");
    const other = Buffer.from(JSON.stringify(claims({ sub: "root" }))).toString("base64url");
    const refused: Record<string, string> = {
      "another issuer": await signed(claims({ iss: "https://other.test" })),
      "another audience": await signed(claims({ aud: "other" })),
      "no end": await signed(endless),
      "no name": await signed(nameless),
      "a name that is none": await signed(claims({ sub: "a b\nc" })),
      "not yet": await signed(claims({ nbf: nowSeconds() + 120 })),
      "a key that is not known": await signed(claims(), "foreign"),
      "a key that is not known under a known id": await signed(claims(), "foreign", { kid: "ec" }),
      "no signature": new UnsecuredJWT(claims()).encode(),
      "no signature, but a known id": `${Buffer.from('{"alg":"none","kid":"ec"}').toString("base64url")}.${payload}.`,
      "a signature cut off": `${header}.${payload}.`,
      "another payload": `${header}.${other}.${signature}`,
      "the public key as the secret": await new SignJWT(claims())
        .setProtectedHeader({ alg: "HS256", kid: "rsa" })
        .sign(Buffer.from(rsaPublicKey)),
      "no JSON": "eyJ.eyJ.eyJ",
      "a key in its own header": await new SignJWT(claims())
        .setProtectedHeader({ alg: "ES256", jwk: await exportJWK(keys.foreign.publicKey) })
        .sign(keys.foreign.privateKey),
      "a static token": "lh_there-is-no-file-of-tokens-with-this-server-a",
    };
    for (const [what, token] of Object.entries(refused)) {
      expect({ what, ...(await answers(address, bearer(token))) }).toEqual({ what, ...unknown });
    }
    expect(await answers(address, bearer(await signed(claims({ exp: nowSeconds() - 60 }))))).toEqual(expired);
    expect(await answers(address)).toEqual(missing);
  });

  it("ends what is open when a token expires, or its key is taken out of the file", async () => {
    let nowMs = Date.now();
    const set = options();
    const server = await serve(set, { wallMs: () => nowMs });
    const client = connection(server.address, {});
    onTestFinished(() => client.close());
    const [byEc, byEd] = [await signed(claims(), "ec"), await signed(claims(), "ed")];
    const [first, second] = [attach(client, bearer(byEc)), attach(client, bearer(byEd))];
    expect([await first.first, await second.first]).toEqual(["OK", "OK"]);
    writeFileSync(set.authJwks as string, JSON.stringify({ keys: [await jwkOf("ed")] }));
    await server.reload();
    expect(await first.end).toMatch(/^UNAUTHENTICATED: /);
    expect(await call(client, bearer(byEc))).toBe(unknown.unary);
    expect(await call(client, bearer(byEd))).toBe("OK");
    nowMs += 120_000; // one of those that were verified before
    expect(await call(client, bearer(byEd))).toBe(expired.unary);
    await server.reload(); // as its timer would have it, if time had really passed
    expect(await second.end).toMatch(/^UNAUTHENTICATED: /);
  });

  it("takes the name from the claim that it is told", async () => {
    const { address } = await serve(options({ authJwtClaim: "email" }));
    expect(await answers(address, bearer(await signed(claims({ email: "ci@example.org" }))))).toEqual(ok);
    expect(await answers(address, bearer(await signed()))).toEqual(unknown);
  });

  it("goes together with static tokens", async () => {
    const token = "lh_good-good-good-good-good-good-good-good-good";
    const { address } = await serve(options({ authTokens: file(tokenLine("ci", token)) }));
    expect(await answers(address, bearer(token))).toEqual(ok);
    expect(await answers(address, bearer(await signed()))).toEqual(ok);
    expect(await answers(address, bearer(`${token}x`))).toEqual(unknown);
  });

  it("does not start with keys that it should not have, or cannot use", async () => {
    const secretKey = { ...(await exportJWK(keys.ec.privateKey)), kid: "ec", alg: "ES256" };
    const wrong: Record<string, RegExp> = {
      "{": /authJwks: ".*": it is not JSON$/,
      "{}": /it is not a JWKS/,
      '{"keys":[]}': /it is not a JWKS/,
      '{"keys":[{"kty":"EC"}]}': /key 1: it cannot be used/,
      '{"keys":[7]}': /key 1: it is no key/,
      '{"keys":[{"kty":"oct","k":"AAAA"}]}': /key 1: it has the member "k"/,
      [JSON.stringify({ keys: [secretKey] })]: /key 1: it has the member "d"/,
      [JSON.stringify({ keys: Array.from({ length: 21 }, () => ({})) })]: /more than 20 keys/,
    };
    for (const [content, message] of Object.entries(wrong)) {
      await expect(serve(options({ authJwks: file(content) }))).rejects.toThrow(message);
    }
  });
});

describeWithServices("client certificates", ["openssl"], () => {
  let authority: Awaited<ReturnType<typeof certificateAuthority>>;
  let other: Awaited<ReturnType<typeof certificateAuthority>>;
  let tls: { readonly tlsCert: string; readonly tlsKey: string; readonly tlsClientCa: string };
  beforeAll(async () => {
    authority = await certificateAuthority();
    other = await certificateAuthority("another");
    const own = await authority.issue("server", { san: ["DNS:localhost", "IP:127.0.0.1"] });
    tls = { tlsCert: own.certFile, tlsKey: own.keyFile, tlsClientCa: authority.certFile };
  });

  type Certified = { readonly cert: string; readonly key: string };
  const showing = (own?: Certified) => ({
    credentials: credentials.createSsl(
      Buffer.from(authority.cert),
      own ? Buffer.from(own.key) : null,
      own ? Buffer.from(own.cert) : null,
    ),
  });
  const local = (address: string) => address.replace("127.0.0.1", "localhost");

  it("lets in whom the authority vouches for by a URI or a DNS name, and nobody else", async () => {
    const server = await serve({ ...tls, tlsClientAuth: "required" });
    const address = local(server.address);
    const san = (...names: string[]) => authority.issue("client", { san: names });
    expect(await answers(address, showing(await san("URI:spiffe://prod/ci")))).toEqual(ok);
    expect(await answers(address, showing(await san("DNS:ci.example.org", "IP:10.0.0.1")))).toEqual(ok);
    const nameless = everywhere("UNAUTHENTICATED: the client certificate has neither a URI nor a DNS name");
    expect(await answers(address, showing(await san()))).toEqual(nameless);
    expect(await answers(address, showing(await san("IP:10.0.0.1", "email:ci@example.org")))).toEqual(nameless);
    const past = { san: ["URI:spiffe://prod/ci"], notAfter: new Date(Date.now() - 60_000) };
    const notConnected = {
      unary: expect.stringMatching(/connect|alert/i),
      session: expect.any(String),
      watch: expect.any(String),
    };
    for (const unwanted of [
      showing(),
      showing(await other.issue("client", { san: ["URI:spiffe://prod/ci"] })),
      showing(await authority.issue("client", past)),
    ]) {
      const answer = await answers(address, unwanted);
      expect(answer).toEqual(notConnected);
      expect(Object.values(answer)).not.toContain("OK");
    }
  });

  it("lets in by a token whoever has no certificate, where that is optional", async () => {
    const token = "lh_good-good-good-good-good-good-good-good-good";
    const authTokens = file(tokenLine("ci", token));
    const server = await serve({ ...tls, tlsClientAuth: "optional", authTokens });
    const address = local(server.address);
    const certified = showing(await authority.issue("client", { san: ["URI:spiffe://prod/ci"] }));
    expect(await answers(address, certified)).toEqual(ok);
    expect(await answers(address, { ...showing(), ...bearer(token) })).toEqual(ok);
    expect(await answers(address, showing())).toEqual(missing);
    const foreign = showing(await other.issue("client", { san: ["URI:spiffe://prod/ci"] }));
    expect(await answers(address, foreign)).toEqual(missing);
    // Whoever shows a token means it.
    expect(await answers(address, { ...certified, ...bearer(`${token}x`) })).toEqual(unknown);
    expect(await answers(address, { ...certified, authorization: "Basic eA==" })).toEqual(malformed);
  });

  it("are told apart by the names of their owners, as tokens are", async () => {
    const token = "lh_good-good-good-good-good-good-good-good-good";
    const rule = (principal: string) => `  - { principal: "${principal}", prefix: "", verbs: [acquire, observe] }\n`;
    const policy = file(`rules:\n${rule("cert/spiffe://prod/ci")}${rule("token/ci")}`);
    const authTokens = file(tokenLine("ci", token) + tokenLine("spiffe://prod/ci", `${token}x`));
    const server = await serve({ ...tls, tlsClientAuth: "optional", authTokens, policy, auditLog: "none" });
    const address = local(server.address);
    const [ci, other] = await Promise.all(
      ["ci", "other"].map((name) => authority.issue("ci", { san: [`URI:spiffe://prod/${name}`] })),
    );
    const denied = expect.stringMatching(/^DENIED: /);
    const callers = [
      [{ ...showing(), ...bearer(token) }, "OK"],
      [{ ...showing(), ...bearer(`${token}x`) }, denied], // token/spiffe://prod/ci
      [showing(ci), "OK"],
      [showing(other), denied],
    ] as const;
    for (const [caller, answer] of callers) {
      const client = connection(address, caller);
      onTestFinished(() => client.close());
      for (let i = 0; i < 2; i++) expect(await call(client, caller)).toEqual(answer);
      expect(await watchAll(client, caller).first).toEqual(answer);
    }
  });

  it("ends what is open when a certificate expires", async () => {
    const server = await serve({ ...tls, tlsClientAuth: "required" });
    const notAfter = new Date(Date.now() + 3_000);
    const caller = showing(await authority.issue("client", { san: ["URI:spiffe://prod/ci"], notAfter }));
    const client = connection(local(server.address), caller);
    onTestFinished(() => client.close());
    const [session, watch] = [attach(client, caller), watchAll(client, caller)];
    expect([await session.first, await watch.first]).toEqual(["OK", "OK"]);
    expect(await session.end).toMatch(/^UNAUTHENTICATED: /);
    expect(await watch.end).toMatch(/^UNAUTHENTICATED: /);
    expect(await call(client, caller)).toMatch(/^UNAUTHENTICATED: the client certificate has expired|connect/i);
  });
});
