"""The thin doors to Attar: command line, bulk work, web app. No arithmetic lives here."""
