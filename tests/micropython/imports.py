"""Where the module is found, and what its exception is."""

import os

from harness import scenario


@scenario(tcp=True)
def both_homes_hold_the_same_objects(t):
    mp = t.mp("""
        import umqtt, usr.umqtt
        from usr.umqtt import MQTTClient as A, MQTTException as B
        say(A is MQTTClient, B is MQTTException, usr.umqtt.MQTTClient is umqtt.MQTTClient)
    """)
    mp.expect("True True True")


def write_usr(folder):
    """What a user keeps in `usr`: scripts of his own, and the one line that the documentation gives for a real directory."""
    os.makedirs(os.path.join(folder, "usr"))
    for name, text in ("other.py", "x = 'mine'\n"), ("umqtt.py", "from umqtt import MQTTClient, MQTTException\n"):
        with open(os.path.join(folder, "usr", name), "w") as file:
            file.write(text)


@scenario(unix=True)
def a_users_own_usr_directory_goes_on_working(t):
    write_usr(t.directory)  # beside the script, as on a device
    for script in ("from usr.other import x\nfrom usr.umqtt import MQTTClient\nimport umqtt\n",
                   "from usr.umqtt import MQTTClient\nfrom usr.other import x\nimport umqtt\n",
                   "import umqtt\nfrom usr.umqtt import MQTTClient\nfrom usr.other import x\n"):
        mp = t.mp(script + "print(x, MQTTClient is umqtt.MQTTClient)\n", bare=True)
        mp.expect("mine True")
        mp.finish()


@scenario(unix=True, tcp=True)
def a_usr_directory_elsewhere_on_the_path(t):
    folder = os.path.join(t.directory, "elsewhere")
    write_usr(folder)
    mp = t.mp("""
        from usr.other import x
        from usr.umqtt import MQTTClient as A
        say(x, A is MQTTClient)
    """, environment={"MICROPYPATH": folder})
    mp.expect("mine True")


@scenario
def what_is_not_in_usr_is_an_import_error(t):
    mp = t.mp("""
        try:
            import usr.missing
        except ImportError:
            say("ImportError")
    """)
    mp.expect("ImportError")


@scenario
def the_exception_is_a_value_error_with_code_and_text(t):
    mp = t.mp("""
        say(issubclass(MQTTException, ValueError))
        e = MQTTException(5, "not authorized")
        say(isinstance(e, ValueError), e.args)
    """)
    mp.expect("True", "True (5, 'not authorized')")
