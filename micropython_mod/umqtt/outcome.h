// What a call of the engine came to, in words and as an exception.
#ifndef MICROPY_INCLUDED_UMQTT_OUTCOME_H
#define MICROPY_INCLUDED_UMQTT_OUTCOME_H

#include "py/obj.h"
#include "link.h"
#include "port.h"
#include "umqtt.h"

extern const mp_obj_type_t mp_type_MQTTException;

// What failed, for exceptions and the error callback. `link`: the connection that it is about, or NULL; `server`: whose
// server is named before, or NULL.
mp_obj_t umqtt_describe(umqtt_outcome_t outcome, const umqtt_link_t *link, const umqtt_settings_t *server);

// Raises MQTTException.
MP_NORETURN void umqtt_raise_mqtt(int code, const char *text);
// Raises what connect() raises if it fails, or what all other calls do.
MP_NORETURN void umqtt_raise(umqtt_frame_t *frame, umqtt_outcome_t outcome, bool connecting);

#endif // MICROPY_INCLUDED_UMQTT_OUTCOME_H
