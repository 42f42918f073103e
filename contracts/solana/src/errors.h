/* The program's errors: custom codes from 6000, as docs/solana.md lists them.
 *
 * Every function that can fail returns one of these, or 0.
 */
#ifndef TWOPM_ERRORS_H
#define TWOPM_ERRORS_H

enum error {
    OK = 0,

    UNKNOWN_INSTRUCTION = 6000,
    WRONG_DATA_LENGTH = 6001,
    WRONG_ACCOUNT_COUNT = 6002,
    MISSING_SIGNER = 6003,
    NOT_WRITABLE = 6004,
    WRONG_OWNER = 6005,
    WRONG_ACCOUNT_KIND = 6006,
    WRONG_ADDRESS = 6007,
    WRONG_SYSTEM_PROGRAM = 6008,
    ALREADY_INITIALISED = 6009,
    NOT_INITIALISED = 6010,
    BAD_CONFIG = 6011,
    UNSUPPORTED_RENT = 6012,
    OVERFLOW = 6013,

    DEADLINE_PASSED = 6020,
    WRONG_SIGNER = 6021,
    BAD_SIGNATURE = 6022,
    ZERO_SEALING_KEY = 6023,
    NOT_REGISTERED = 6024,

    ZERO_DIGEST = 6030,
    ZERO_SAMPLES = 6031,
    WRONG_VERSION = 6032,

    UNKNOWN_TASK = 6040,
    NOT_COORDINATOR = 6041,
    WRONG_STATE = 6042,
    BAD_TERMS = 6043,
    ALREADY_MEMBER = 6044,
    SEALING_KEY_MISMATCH = 6045,
    SAMPLES_OUT_OF_RANGE = 6046,
    TOO_FEW_MEMBERS = 6047,
    TOO_MANY_ROUNDS = 6048,
    OUT_OF_ORDER = 6049,
    ALREADY_RECORDED = 6050,
    ROUNDS_MISSING = 6051,
    HEAD_MISMATCH = 6052,
    QUORUM_MISSED = 6053,
    NOT_MEMBER = 6054,
    SIGNERS_NOT_INCREASING = 6055,
    REASON_TOO_LONG = 6056,
    TOO_MANY_MEMBERS = 6057,
    UNKNOWN_TALLY = 6058,
    STALE_TALLY = 6059,
    ALREADY_ANCHORED = 6060,
    EMPTY_BATCH = 6061,
};

/* Leaves the calling function when a step fails. */
#define TRY(step)                  \
    do {                           \
        u64 try_error = (step);    \
        if (try_error != OK) {     \
            return try_error;      \
        }                          \
    } while (0)

#define REQUIRE(condition, error)  \
    do {                           \
        if (!(condition)) {        \
            return (error);        \
        }                          \
    } while (0)

#endif
