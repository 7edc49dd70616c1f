"""Twilio at the edge: webhooks, TwiML, signatures, media streams. Nobody else knows Twilio."""
