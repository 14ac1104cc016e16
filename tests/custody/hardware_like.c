/* SoftHSM as a hardware token would behave where SoftHSM does not: its user PIN locks after three wrong tries until the security officer
   sets a new one, and it has room for so many objects only. Everything else goes to the real module, named in CITYCARD_TEST_MODULE. An
   officer in another process leaves the file that CITYCARD_TEST_UNLOCKED names. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ck;
enum { C_INITIALIZE = 0, C_FINALIZE = 1, C_INIT_PIN = 10, C_LOGIN = 18, C_CREATE_OBJECT = 20, FUNCTIONS = 68 };
enum { CKR_PIN_INCORRECT = 0xA0, CKR_PIN_LOCKED = 0xA4, CKR_DEVICE_MEMORY = 0x31, CKR_GENERAL_ERROR = 5, CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191 };

int tries_left = 3;
int room = 1000;

static void *real[1 + FUNCTIONS], *ours[1 + FUNCTIONS];

/* Tests of one process use the real module by its own path as well. */
static ck initialize(void *arguments)
{
    ck (*begin)(void *) = (ck(*)(void *))real[1 + C_INITIALIZE], (*end)(void *) = (ck(*)(void *))real[1 + C_FINALIZE];
    ck returned = begin(arguments);
    if (returned != CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return returned;
    end(NULL);
    return begin(arguments);
}

static ck login(ck session, ck user, unsigned char *pin, ck len)
{
    char *mark = getenv("CITYCARD_TEST_UNLOCKED");
    if (mark && access(mark, F_OK) == 0)
        tries_left = 3;
    if (user == 1 && tries_left == 0)
        return CKR_PIN_LOCKED;
    ck returned = ((ck(*)(ck, ck, unsigned char *, ck))real[1 + C_LOGIN])(session, user, pin, len);
    if (user == 1)
        tries_left = returned == CKR_PIN_INCORRECT ? tries_left - 1 : 3;
    return returned;
}

static ck init_pin(ck session, unsigned char *pin, ck len)
{
    ck returned = ((ck(*)(ck, unsigned char *, ck))real[1 + C_INIT_PIN])(session, pin, len);
    if (!returned)
        tries_left = 3;
    return returned;
}

static ck create_object(ck session, void *template, ck count, ck *object)
{
    if (room == 0)
        return CKR_DEVICE_MEMORY;
    room--;
    return ((ck(*)(ck, void *, ck, ck *))real[1 + C_CREATE_OBJECT])(session, template, count, object);
}

ck C_GetFunctionList(void **list)
{
    void *module = dlopen(getenv("CITYCARD_TEST_MODULE"), RTLD_NOW), *found = NULL;
    if (!module)
        return CKR_GENERAL_ERROR;
    ck (*get)(void **) = (ck(*)(void **))dlsym(module, "C_GetFunctionList");
    ck failed = get ? get(&found) : CKR_GENERAL_ERROR;
    if (failed)
        return failed;
    memcpy(real, found, sizeof real);
    memcpy(ours, found, sizeof ours);
    ours[1 + C_INITIALIZE] = (void *)initialize;
    ours[1 + C_LOGIN] = (void *)login;
    ours[1 + C_INIT_PIN] = (void *)init_pin;
    ours[1 + C_CREATE_OBJECT] = (void *)create_object;
    *list = ours;
    return 0;
}
