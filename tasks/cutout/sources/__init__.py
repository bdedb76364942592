"""Where images come from: each module gives one `Source`, and is loaded when it is asked for."""
