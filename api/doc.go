// Package api serves Ringmaster over HTTP.
//
// [New] makes an [http.Handler] out of a [Service], which the engine is. The
// routes, their documents and their limits are described in OpenAPI 3.1 at
// /openapi.json; the documents themselves are those of package rest. Every
// refusal is an RFC 9457 problem document that names the field and the rule,
// with a stable word in its member code.
//
// Requests are decoded and validated from the types by huma. The two routes
// that start runs are asked thousands of times a second, so they are read by a
// decoder of their own first: it accepts only what it is sure about and hands
// everything else, with the body put back, to huma. The answers are the same.
//
// There is no authentication. [NewServer] and the option LoopbackOnly keep the
// handler to this machine and out of reach of web pages that are open on it.
package api
