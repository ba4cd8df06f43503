import createError from '@fastify/error'

// `critical` tells a circuit breaker whether the infrastructure failed: here it is always the caller's input that did.

/** A header that a request carries once stands twice. */
export class InputHeader extends createError<[string]>('FST_INPUT_HEADER', 'More than one %s header: send one', 400) {
  readonly critical = false
}

/** The URL holds NUL, or percent-encoded bytes that are not UTF-8. */
export class InputUrl extends createError('FST_INPUT_URL', 'The URL holds NUL or is not percent-encoded UTF-8: encode it again, with "%25" for "%"', 400) {
  readonly critical = false
}

/** The body's media type is none of those that the route lists. */
export class InputMediaType extends createError<[string]>('FST_INPUT_MEDIA_TYPE', 'Set Content-Type to what this route takes: %s', 415) {
  readonly critical = false
}

/** The body is not the JSON, form or text that its media type says. */
export class InputBody extends createError<[string]>('FST_INPUT_BODY', '%s', 400) {
  readonly critical = false
}

/** A part of the request is not what the route's schema says. The code is Fastify's own: error handlers look for it. */
export class InputValidation extends createError<[string]>('FST_ERR_VALIDATION', '%s', 400) {
  readonly critical = false
}

/** The database could not take a value of the request. */
export class InputRefused extends createError<[string]>('FST_INPUT_REFUSED', 'The database cannot take a value of this request (SQLSTATE %s): check the format of ids, and that text holds no NUL', 400) {
  readonly critical = false
}

/** An option of the plugin is not what it may be. */
export class InputOptions extends createError<[string]>('FST_INPUT_OPTIONS', 'strict-input: %s', 500) {
  readonly critical = false
}
