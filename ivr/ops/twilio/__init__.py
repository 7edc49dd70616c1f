"""The Twilio account as it should be: what a number must be set to, and checks of all that calls hang on."""
